export const hours = {
  title: 'Opening hours',
  closures: 'Closures',
}
