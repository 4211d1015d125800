import { useEffect, useRef } from 'preact/hooks'

/**
 * useKeptFocus moves the focus to the heading of the page when the control that had it is removed, such
 * as the button to check in after the check-in. Otherwise a keyboard would begin at the top of the page. The
 * component calls it when it is drawn.
 */
export function useKeptFocus(): void {
  const last = useRef<Element | null>(null)
  useEffect(() => {
    const note = (e: FocusEvent): void => {
      last.current = e.target instanceof Element ? e.target : null
    }
    document.addEventListener('focusin', note)
    return () => document.removeEventListener('focusin', note)
  }, [])
  useEffect(() => {
    // The parts of the page below this component are drawn by the next frame.
    const frame = requestAnimationFrame(() => {
      if (last.current === null || last.current.isConnected || document.activeElement !== document.body)
        return
      const heading = document.querySelector<HTMLElement>('main h1')
      if (heading === null) return
      heading.tabIndex = -1
      heading.focus({ preventScroll: true })
    })
    return () => cancelAnimationFrame(frame)
  })
}
