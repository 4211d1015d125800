import type { hours as English } from '../en/hours.ts'

export const hours: typeof English = {
  title: 'Öffnungszeiten',
  closures: 'Schließungen',
}
