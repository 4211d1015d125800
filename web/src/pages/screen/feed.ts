import { computed, signal, type ReadonlySignal } from '@preact/signals'
import type { Schema } from '../../api/client.ts'
import type { Problem } from '../../api/problem.ts'
import { openStream, type Stream } from '../../api/stream.ts'
import { displayKey, renameDisplay } from '../../state/display.ts'

type State = Schema<'ScreenState'>
export type Code = Schema<'ScreenCode'>

/** Feed is what the screen shows, and the time of the server. */
export interface Feed {
  /** The last state; undefined: none has arrived, or the server has refused the screen. */
  readonly state: ReadonlySignal<State | undefined>
  /** The time of the server in milliseconds since 1970, four times a second; 0: not known yet. */
  readonly time: ReadonlySignal<number>
  /** The code to show now; undefined: none is valid. */
  readonly code: ReadonlySignal<Code | undefined>
  /** How long the feed has had no connection, in milliseconds; 0: it is connected. */
  readonly silent: ReadonlySignal<number>
  /** Why the server refuses the screen. */
  readonly refused: ReadonlySignal<Problem | undefined>
  close(): void
}

/** A refusal may end: the screen is added again, or the server gets its secret. A bad key stays bad. */
const tryAgain = 30_000 // milliseconds

/**
 * openFeed watches a screen. It counts time with a clock that cannot be set, from the server's time on:
 * the clock of the computer may be wrong, or be corrected while codes are shown.
 */
export function openFeed(screen: string): Feed {
  const state = signal<State | undefined>(undefined)
  const refused = signal<Problem | undefined>(undefined)
  const lostAt = signal<number | undefined>(performance.now())
  const time = signal(0)
  const silent = signal(0)
  let ahead: number | undefined // the server's time minus performance.now()
  let fresh = true // no message of this connection has arrived
  let stream: Stream
  let retry: ReturnType<typeof setTimeout> | undefined
  let unsubscribe: () => void

  let offset = Date.now() - performance.now()

  function tick(): void {
    // If the computer has slept, performance.now() may have stood still: learn the time again.
    const moved = Date.now() - performance.now() - offset
    if (Math.abs(moved) > 5000) {
      offset += moved
      again()
    }
    if (ahead !== undefined) time.value = performance.now() + ahead
    silent.value = lostAt.value === undefined ? 0 : performance.now() - lostAt.value
  }
  function open(): void {
    const query = new URLSearchParams({ link: link() })
    if (screen !== '') query.set('screen', screen)
    stream = openStream({
      url: () => `/v1/screen:watch?${query}`,
      key: displayKey,
      keepHidden: true,
      onReopen: () => {
        fresh = true
      },
      onEvent: (name, data) => {
        const message = data as Schema<'WatchScreenResponse'>
        if (name !== 'state' || message.state === undefined) return
        const seen = Date.parse(message.serverTime ?? '') - performance.now()
        // A late message makes the server's clock seem late; none can make it seem early.
        if (!Number.isNaN(seen) && (fresh || ahead === undefined || seen > ahead)) ahead = seen
        fresh = false
        refused.value = undefined
        state.value = message.state
        if (screen !== '' && message.state.name !== screen) {
          screen = message.state.name
          query.set('screen', screen)
          renameDisplay(screen)
        }
        tick()
      },
    })
    unsubscribe = stream.state.subscribe((s) => {
      if (s.kind === 'open') lostAt.value = undefined
      if (s.kind === 'opening') lostAt.value ??= s.since
      if (s.kind === 'refused') {
        state.value = undefined // its codes are not valid any more
        refused.value = s.problem
        lostAt.value ??= performance.now()
        if (s.problem.status !== 401) retry = setTimeout(again, tryAgain)
      }
      tick()
    })
  }

  function again(): void {
    clearTimeout(retry)
    unsubscribe()
    stream.close()
    fresh = true
    open()
  }

  open()
  const timer = setInterval(tick, 250)

  return {
    state,
    time,
    silent,
    refused,
    code: computed(() => codeAt(state.value?.codes ?? [], time.value)),
    close() {
      clearInterval(timer)
      clearTimeout(retry)
      unsubscribe()
      stream.close()
    },
  }
}

/** codeAt returns the last code that has begun and has not ended at a time of the server. */
export function codeAt(codes: readonly Code[], time: number): Code | undefined {
  let shown: Code | undefined
  for (const c of codes) {
    if (Date.parse(c.validFrom ?? '') <= time && time < Date.parse(c.validUntil ?? '')) shown = c
  }
  return shown
}

/** link returns the address before a code. Upper case makes a smaller QR code; the page accepts it. */
function link(): string {
  return `${location.origin.toUpperCase()}/C/`
}
