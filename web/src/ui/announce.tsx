import { signal } from '@preact/signals'
import type { JSX } from 'preact'

const polite = signal('')
const assertive = signal('')
let waiting: string[] = []
let timer: ReturnType<typeof setTimeout> | undefined

/** announce lets a screen reader say a change, together with the other changes of the same second. */
export function announce(text: string): void {
  waiting.push(text)
  timer ??= setTimeout(() => {
    polite.value = waiting.join(' ')
    waiting = []
    timer = undefined
  }, 1000)
}

/** alertNow lets a screen reader say something at once, such as an offer that expires. */
export function alertNow(text: string): void {
  assertive.value = ''
  queueMicrotask(() => {
    assertive.value = text
  })
}

/** Announcer is the part of the page that screen readers listen to. */
export function Announcer(): JSX.Element {
  return (
    <div class="visually-hidden">
      <div role="status" aria-live="polite">
        {polite}
      </div>
      <div role="alert" aria-live="assertive">
        {assertive}
      </div>
    </div>
  )
}
