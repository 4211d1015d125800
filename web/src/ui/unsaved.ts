import { useLayoutEffect } from 'preact/hooks'
import { guard } from '../router.tsx'

/** useUnsaved asks before the user leaves a page with changes that are not saved. A page may use it once. */
export function useUnsaved(dirty: boolean, question: string): void {
  useLayoutEffect(() => {
    if (!dirty) return
    const ask = (e: BeforeUnloadEvent): void => e.preventDefault()
    addEventListener('beforeunload', ask)
    guard(() => confirm(question))
    return () => {
      removeEventListener('beforeunload', ask)
      guard(undefined)
    }
  }, [dirty, question])
}
