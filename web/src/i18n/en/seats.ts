export const seats = {
  title: 'Seats',
  map: 'Floor plan',
  import: 'Import',
  labels: 'Labels',
  screens: 'Screens',
}
