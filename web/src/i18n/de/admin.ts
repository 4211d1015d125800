import type { admin as English } from '../en/admin.ts'

export const admin: typeof English = {
  title: 'Bibliothek',
  today: 'Heute',
  branch: 'Zweigstelle',
  announcement: 'Ankündigung',
  audit: 'Änderungsprotokoll',
}
