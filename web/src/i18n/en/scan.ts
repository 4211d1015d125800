export const scan = {
  title: 'Check in',
}
