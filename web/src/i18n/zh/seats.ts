import type { seats as English } from '../en/seats.ts'

export const seats: typeof English = {
  title: '座位',
  map: '平面图',
  import: '导入',
  labels: '座位标签',
  screens: '屏幕',
}
