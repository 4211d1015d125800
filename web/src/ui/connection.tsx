import { computed, signal } from '@preact/signals'
import type { JSX } from 'preact'
import type { Stream } from '../api/stream.ts'
import { t } from '../i18n/text.ts'
import { now } from '../state/clock.ts'

const streams = signal<readonly Stream[]>([])

/** watchConnection lets the page tell when a stream of it has no connection for more than 3 seconds. */
export function watchConnection(s: Stream): () => void {
  streams.value = [...streams.value, s]
  return () => {
    streams.value = streams.value.filter((other) => other !== s)
  }
}

const lossTimeout = 3000 // milliseconds

const lost = computed(() => {
  void now.value // once a second
  return streams.value.some((s) => {
    const state = s.state.value
    return state.kind === 'opening' && performance.now() - state.since > lossTimeout
  })
})

/** Connection tells that the page is not live at the moment. */
export function Connection(): JSX.Element | null {
  if (!lost.value) return null
  return (
    <p class="banner" role="status">
      {navigator.onLine ? t().common.connecting : t().common.offline}
    </p>
  )
}
