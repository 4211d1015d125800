export const admin = {
  title: 'Library',
  today: 'Today',
  branch: 'Branch',
  announcement: 'Announcement',
  audit: 'Audit log',
  note: {
    legend: 'Text for students',
    hint: 'Students see the text in their language, otherwise in English. Each text is optional.',
  },
  impact: {
    title: 'Effect on students',
    loading: 'Looking for affected reservations…',
    reservations: (n: number) =>
      n === 0 ? 'No reservation is affected.' : `${n === 1 ? '1 reservation is' : `${n} reservations are`} affected.`,
    checkedIn: (n: number) => (n === 1 ? '1 student is at the seat now.' : `${n} students are at their seats now.`),
    waitlist: (n: number) =>
      n === 1 ? '1 waitlist entry is inside; it stays.' : `${n} waitlist entries are inside; they stay.`,
    affected: 'Affected reservations',
    person: 'Student',
    seat: 'Seat',
    time: 'Time',
    showFirst: (n: number) => `Show ${n}`,
    notShown: (n: number) => (n === 1 ? '1 more is not shown.' : `${n} more are not shown.`),
    action: 'Reservations inside',
    keep: 'Keep them',
    keepHint: 'The students can use their seats as reserved.',
    cancel: 'Cancel them',
    cancelHint: 'Each student is told at once and gets your text and, if possible, another seat as a suggestion.',
    confirmCancel: (confirm: string, n: number) =>
      n === 1 ? `${confirm} and cancel 1 reservation` : `${confirm} and cancel ${n} reservations`,
    reason: 'Reason for the audit log',
    reasonHint: 'Only staff see it.',
  },
}
