import { useLayoutEffect, useRef } from 'preact/hooks'
import { guard } from '../router.tsx'

/** useUnsaved asks before the user leaves a page with changes that are not saved. A page may use it once. */
export function useUnsaved(dirty: boolean, question: string): void {
  useLayoutEffect(() => (dirty ? guardPage(question) : undefined), [dirty, question])
}

/** guardPage asks before the user leaves the page, until the result is called. */
function guardPage(question: string): () => void {
  const ask = (e: BeforeUnloadEvent): void => e.preventDefault()
  addEventListener('beforeunload', ask)
  guard(() => confirm(question))
  return () => {
    removeEventListener('beforeunload', ask)
    guard(undefined)
  }
}

/** Edits says whether a form was edited. */
export interface Edits {
  /** edit tells that the user has changed something. The form calls it on each input. */
  edit: () => void
  /** release lets the user leave: nothing is lost. */
  release: () => void
}

/**
 * useEdits asks before the user leaves a page with a form that was edited. A page may use it once. It
 * draws nothing again: a check box that is drawn between its events "input" and "change" loses the click.
 */
export function useEdits(question: string): Edits {
  const release = useRef<(() => void) | undefined>(undefined)
  const edits = {
    edit: () => {
      release.current ??= guardPage(question)
    },
    release: () => {
      release.current?.()
      release.current = undefined
    },
  }
  useLayoutEffect(() => edits.release, [])
  return edits
}
