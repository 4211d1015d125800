import type { me as English } from '../en/me.ts'

export const me: typeof English = {
  title: '我的座位',
}
