import type { seats as English } from '../en/seats.ts'

export const seats: typeof English = {
  title: 'Plätze',
  map: 'Grundriss',
  import: 'Import',
  labels: 'Etiketten',
  screens: 'Bildschirme',
}
