import type { admin as English } from '../en/admin.ts'

export const admin: typeof English = {
  title: '图书馆',
  today: '今天',
  branch: '分馆',
  announcement: '公告',
  audit: '操作记录',
  note: {
    legend: '给学生的说明',
    hint: '学生看到自己语言的说明，没有时看到英文。每种语言都可以不填。',
  },
  impact: {
    title: '对学生的影响',
    loading: '正在查找受影响的预约…',
    reservations: (n) => (n === 0 ? '没有预约受影响。' : `${n} 个预约受影响。`),
    checkedIn: (n) => `其中 ${n} 人正在座位上。`,
    waitlist: (n) => `有 ${n} 个候补在此范围内，候补会保留。`,
    affected: '受影响的预约',
    person: '学生',
    seat: '座位',
    time: '时间',
    showFirst: (n) => `显示 ${n} 个`,
    notShown: (n) => `另有 ${n} 个未显示。`,
    action: '对范围内的预约',
    keep: '保留',
    keepHint: '学生可以照常使用已预约的座位。',
    cancel: '取消',
    cancelHint: '立即通知每位学生，附上您的说明；如有其他空座，会一并推荐。',
    confirmCancel: (confirm, n) => `${confirm}并取消 ${n} 个预约`,
    reason: '操作记录中的原因',
    reasonHint: '只有工作人员能看到。',
  },
}
