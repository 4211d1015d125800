export const now = {
  title: 'Find a seat',
}
