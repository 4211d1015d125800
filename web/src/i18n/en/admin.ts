export const admin = {
  title: 'Library',
  today: 'Today',
  branch: 'Branch',
  announcement: 'Announcement',
  audit: 'Audit log',
}
