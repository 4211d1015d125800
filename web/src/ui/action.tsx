import { useSignal, type Signal } from '@preact/signals'
import type { ComponentChildren, JSX } from 'preact'
import { asProblem, type Problem } from '../api/problem.ts'
import { t } from '../i18n/text.ts'

/** Action is something that the user has started: whether it is under way, and how it failed. */
export interface Action {
  readonly busy: Signal<boolean>
  readonly problem: Signal<Problem | undefined>
  /** run starts the action, unless it is under way, and reports whether it succeeded. */
  run: (f: () => Promise<void>) => Promise<boolean>
}

/** useAction returns an action of a component. */
export function useAction(): Action {
  const busy = useSignal(false)
  const problem = useSignal<Problem | undefined>(undefined)
  return {
    busy,
    problem,
    async run(f) {
      if (busy.value) return false
      busy.value = true
      problem.value = undefined
      try {
        await f()
        return true
      } catch (e) {
        problem.value = asProblem(e)
        return false
      } finally {
        busy.value = false
      }
    },
  }
}

interface ButtonProps {
  children: ComponentChildren
  onClick?: () => void
  busy?: boolean
  disabled?: boolean
  kind?: 'main' | 'plain' | 'danger'
  type?: 'button' | 'submit'
  label?: string
}

/** Button is a button that shows that its action is under way. */
export function Button({
  children,
  onClick,
  busy = false,
  disabled = false,
  kind = 'plain',
  type = 'button',
  label,
}: ButtonProps): JSX.Element {
  return (
    <button
      type={type}
      class={`button ${kind}`}
      disabled={disabled}
      aria-disabled={busy || undefined}
      aria-busy={busy || undefined}
      aria-label={label}
      onClick={() => {
        if (!busy) onClick?.()
      }}
    >
      {busy ? <span class="spinner" aria-hidden="true" /> : null}
      <span>{busy ? t().common.working : children}</span>
    </button>
  )
}
