import { effect, signal } from '@preact/signals'
import type { JSX } from 'preact'
import { t } from '../i18n/text.ts'
import { account } from '../state/session.ts'
import { announce } from './announce.tsx'

interface Item {
  id: number
  text: string
}

const items = signal<readonly Item[]>([])
let next = 1

/** notify shows the success of an action for a while. Errors stay where they happen: see Fault. */
export function notify(text: string): void {
  const item = { id: next++, text }
  items.value = [...items.value.slice(-2), item]
  announce(text)
  setTimeout(() => dismiss(item.id), 8000)
}

/** A user who signs in does not see the notices of the user before, such as that of the sign-out. */
let user: string | undefined
effect(() => {
  const id = account.value?.user.id
  if (id !== undefined && id !== user) items.value = []
  user = id
})

function dismiss(id: number): void {
  items.value = items.value.filter((i) => i.id !== id)
}

/** Notices shows the notices of now. */
export function Notices(): JSX.Element {
  return (
    <div class="notices">
      {items.value.map((i) => (
        <div class="notice" key={i.id}>
          <span>{i.text}</span>
          <button
            class="icon-button"
            type="button"
            aria-label={t().common.close}
            onClick={() => dismiss(i.id)}
          >
            ×
          </button>
        </div>
      ))}
    </div>
  )
}
