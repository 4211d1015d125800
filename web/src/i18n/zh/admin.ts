import type { admin as English } from '../en/admin.ts'

export const admin: typeof English = {
  title: '图书馆',
  today: '今天',
  branch: '分馆',
  announcement: '公告',
  audit: '操作记录',
}
