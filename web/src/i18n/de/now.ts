import type { now as English } from '../en/now.ts'

export const now: typeof English = {
  title: 'Platz finden',
}
