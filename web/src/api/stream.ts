import { signal, type ReadonlySignal } from '@preact/signals'
import { observeServerTime } from '../state/clock.ts'
import { authorization, reportProblem } from './client.ts'
import { Problem } from './problem.ts'

/** StreamState is what a stream knows about its connection. */
export type StreamState =
  | { kind: 'open' }
  /** The stream is being opened. `since` is the time of the loss, of performance.now(). */
  | { kind: 'opening'; since: number }
  /** The server refused the stream; it is not opened again. */
  | { kind: 'refused'; problem: Problem }
  | { kind: 'closed' }

export interface Stream {
  readonly state: ReadonlySignal<StreamState>
  close(): void
}

export interface StreamOptions {
  /** url returns the address for each attempt. */
  url: () => string
  /** onEvent receives an event: its name and the JSON of its data. */
  onEvent: (name: string, data: unknown) => void
  /** onReopen is called before the first event of each connection but the first. */
  onReopen?: () => void
  /** keepHidden keeps the stream open while the tab is hidden. A browser has six connections without TLS. */
  keepHidden?: boolean
  /** key returns a service key, which the stream sends in place of the user's token. */
  key?: () => string
}

/** The server sends a heartbeat every 25 seconds. A connection that is silent for longer is dead. */
const silence = 35_000 // milliseconds

/** A connection that lasted for this time was a good one. Others count as failed attempts. */
const steady = 5000 // milliseconds

/**
 * openStream reads server-sent events with fetch, because EventSource cannot send a token. It opens
 * the stream again when it ends, when the tab is shown again, and after 35 seconds of silence.
 * `Last-Event-ID` continues a stream whose events have ids.
 */
export function openStream(options: StreamOptions): Stream {
  const state = signal<StreamState>({ kind: 'opening', since: performance.now() })
  let attempt: AbortController | undefined
  let timer: ReturnType<typeof setTimeout> | undefined
  let failures = 0
  let opened = false
  let lastId = ''
  let retry = 2000 // milliseconds; the server sends another value
  let heard = performance.now()
  let began = 0 // when the first bytes of the connection arrived; 0: none have

  const hidden = (): boolean => document.visibilityState === 'hidden' && options.keepHidden !== true

  function lost(): void {
    if (state.value.kind === 'open') state.value = { kind: 'opening', since: performance.now() }
  }

  function again(): void {
    clearTimeout(timer)
    if (state.value.kind === 'closed' || state.value.kind === 'refused') return
    lost()
    if (hidden()) return
    // The first attempt is immediate: another replica answers. Later ones spread out.
    const wait =
      failures === 0 ? 0 : Math.min(retry * 2 ** (failures - 2), 30_000) * (0.5 + Math.random() / 2)
    timer = setTimeout(connect, wait)
  }

  async function connect(): Promise<void> {
    attempt?.abort()
    const mine = new AbortController()
    attempt = mine
    heard = performance.now()
    began = 0
    const token = options.key === undefined ? authorization() : { Authorization: `Bearer ${options.key()}` }
    const headers: Record<string, string> = { Accept: 'text/event-stream', ...token }
    try {
      if (lastId !== '') headers['Last-Event-ID'] = lastId
      const response = await fetch(options.url(), { headers, signal: mine.signal, cache: 'no-store' })
      const type = response.headers.get('Content-Type') ?? ''
      if (!response.ok || response.body === null || !type.startsWith('text/event-stream')) {
        throw Problem.from(response, await response.json().catch(() => null))
      }
      observeServerTime(response.headers.get('Date'))
      const stops = await read(response.body, mine.signal)
      failures = lasted() ? (stops ? 1 : 0) : failures + 1
    } catch (e) {
      if (mine.signal.aborted) return
      if (e instanceof Problem) {
        reportProblem(e, headers['Authorization'] ?? '')
        if (e.status >= 400 && e.status < 500 && e.status !== 429 && e.status !== 408) {
          state.value = { kind: 'refused', problem: e }
          return
        }
      }
      failures = lasted() ? 1 : failures + 1
    }
    if (attempt === mine) again()
  }

  function lasted(): boolean {
    return began > 0 && performance.now() - began > steady
  }

  /** read receives events until the connection ends, and reports whether the server has said that it stops. */
  async function read(body: ReadableStream<Uint8Array>, aborted: AbortSignal): Promise<boolean> {
    const reader = body
      .pipeThrough(new TextDecoderStream() as TransformStream<Uint8Array, string>)
      .getReader()
    let rest = ''
    let name = ''
    let data = ''
    let stops = false
    for (;;) {
      const { done, value } = await reader.read()
      if (done || aborted.aborted) return stops
      heard = performance.now()
      if (began === 0) {
        began = heard
        if (opened) options.onReopen?.()
        opened = true
        state.value = { kind: 'open' }
      }
      const lines = (rest + value).split('\n')
      rest = lines.pop() ?? ''
      for (const line of lines) {
        if (line === '') {
          if (data !== '') {
            if (name === 'error')
              stops = true // open on another replica
            else options.onEvent(name, JSON.parse(data))
          }
          name = data = ''
          continue
        }
        const colon = line.indexOf(':')
        const field = colon < 0 ? line : line.slice(0, colon)
        const text = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '')
        if (field === 'event') name = text
        else if (field === 'data') data += data === '' ? text : '\n' + text
        else if (field === 'id') lastId = text
        else if (field === 'retry') retry = Number(text) || retry
      }
    }
  }

  function shown(): void {
    if (state.value.kind === 'closed' || state.value.kind === 'refused') return
    if (hidden()) {
      attempt?.abort()
      attempt = undefined
      clearTimeout(timer)
      lost()
      return
    }
    if (attempt === undefined || performance.now() - heard > silence) {
      failures = 0
      again()
    }
  }

  const watchdog = setInterval(() => {
    if (state.value.kind === 'open' && performance.now() - heard > silence) {
      attempt?.abort()
      failures = 0
      again()
    }
  }, 1000)
  const online = (): void => {
    if (state.value.kind === 'opening') {
      failures = 0
      again()
    }
  }
  document.addEventListener('visibilitychange', shown)
  addEventListener('pageshow', shown)
  addEventListener('online', online)
  again()

  return {
    state,
    close() {
      state.value = { kind: 'closed' }
      attempt?.abort()
      clearTimeout(timer)
      clearInterval(watchdog)
      document.removeEventListener('visibilitychange', shown)
      removeEventListener('pageshow', shown)
      removeEventListener('online', online)
    },
  }
}
