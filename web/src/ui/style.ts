/** Address of the style sheet of the pages of staff; build.mjs sets it. */
declare const STAFF_STYLE: string

let loading: Promise<void> | undefined

/** loadStaffStyle loads the style sheet of the pages of staff and the screen. */
export function loadStaffStyle(): Promise<void> {
  loading ??= new Promise((done, failed) => {
    const link = document.createElement('link')
    link.rel = 'stylesheet'
    link.href = STAFF_STYLE
    link.onload = () => done()
    link.onerror = () => {
      loading = undefined
      link.remove()
      failed(new Error('the style sheet did not load'))
    }
    document.head.append(link)
  })
  return loading
}
