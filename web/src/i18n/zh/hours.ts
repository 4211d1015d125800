import type { hours as English } from '../en/hours.ts'

export const hours: typeof English = {
  title: '开放时间',
  closures: '关闭安排',
}
