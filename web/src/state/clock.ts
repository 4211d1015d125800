import { signal } from '@preact/signals'

/**
 * How far the server's clock is ahead of this device's, in milliseconds. The clock of a device may be
 * wrong by hours; every time on the page is by the server's clock.
 */
let ahead: number | undefined

/**
 * observeServerTime learns the server's time from the Date header of an answer, which has whole
 * seconds, or from a timestamp of a message in RFC 3339.
 */
export function observeServerTime(text: string | null | undefined): void {
  if (text === null || text === undefined || text === '') return
  const time = Date.parse(text)
  if (Number.isNaN(time)) return
  const exact = text.includes('T')
  const next = time + (exact ? 0 : 500) - Date.now()
  // Answers are late by the time of their way, and Date has whole seconds: small differences are no news.
  if (ahead !== undefined && Math.abs(next - ahead) < 1500) return
  ahead = next
  tick()
}

/** serverNow returns the server's time in milliseconds since 1970. */
export function serverNow(): number {
  return Date.now() + (ahead ?? 0)
}

/** now is the server's time, once a second, in milliseconds since 1970. It stands still in a hidden tab. */
export const now = signal(Date.now())

/** minute is the server's time, once a minute: for texts that need no seconds. */
export const minute = signal(Math.floor(Date.now() / 60_000) * 60_000)

function tick(): void {
  now.value = serverNow()
  minute.value = Math.floor(now.value / 60_000) * 60_000
}

setInterval(() => {
  if (document.visibilityState === 'visible') tick()
}, 1000)
document.addEventListener('visibilitychange', () => {
  if (document.visibilityState === 'visible') tick()
})
