export const me = {
  title: 'My seats',
}
