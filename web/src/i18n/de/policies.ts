import type { policies as English } from '../en/policies.ts'

export const policies: typeof English = {
  title: 'Regeln',
}
