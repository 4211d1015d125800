import { useSignal } from '@preact/signals'
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

/** Edits says whether a form was edited. */
export interface Edits {
  /** edit tells that the user has changed something. The form calls it on each input. */
  edit: () => void
  /** release lets the user leave: nothing is lost. */
  release: () => void
}

/** useEdits asks before the user leaves a page with a form that was edited. A page may use it once. */
export function useEdits(question: string): Edits {
  const edited = useSignal(false)
  useUnsaved(edited.value, question)
  return {
    edit: () => {
      edited.value = true
    },
    release: () => {
      edited.value = false
      guard(undefined) // before the next rendering: the caller may open another page at once
    },
  }
}
