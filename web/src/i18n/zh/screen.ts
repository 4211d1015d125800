import type { screen as English } from '../en/screen.ts'

export const screen: typeof English = {
  title: '屏幕',
}
