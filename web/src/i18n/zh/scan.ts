import type { scan as English } from '../en/scan.ts'

export const scan: typeof English = {
  title: '签到',
}
