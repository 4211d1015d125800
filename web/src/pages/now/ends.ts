import { dateOf, instant } from '../../i18n/time.ts'
import type { Rules } from './booking.ts'

const minuteMs = 60_000
const lengths = [30, 60, 120, 180, 240, 360] // minutes

/**
 * ends returns the ends that a reservation from a start can have, earliest first. They are round times
 * of day, and the last possible one. limit: until then the seat is free; Infinity: there is no limit.
 */
export function ends(start: number, limit: number, rules: Rules, zone: string): number[] {
  const midnight = instant(dateOf(start, zone), '00:00', zone).getTime()
  const grid = rules.step || 15 * minuteMs
  // The server is lenient by 10 seconds, for the time until the call arrives.
  const last = Math.min(limit, start + rules.most)
  const possible = (end: number): boolean => end <= last && end - start >= rules.least
  const found = lengths
    .map((m) => midnight + Math.round((start + m * minuteMs - midnight) / grid) * grid)
    .filter(possible)
  if (limit <= start + rules.most || rules.most <= 6 * 3_600_000) {
    // The end of the free time need not be on the grid, unless the library has one.
    const end =
      limit <= start + rules.most && rules.step === 0
        ? limit
        : midnight + Math.floor((last - midnight) / grid) * grid
    if (possible(end)) found.push(end)
  }
  const sorted = [...new Set(found)].sort((a, b) => a - b)
  // Two ends that are almost the same are no choice.
  return sorted.filter(
    (end, i) => i === sorted.length - 1 || (sorted[i + 1] as number) - end >= 10 * minuteMs,
  )
}

/** preferred returns the end that is the closest to a length, but not longer by more than a quarter of an hour. */
export function preferred(start: number, all: readonly number[], minutes: number): number | undefined {
  return all.findLast((end) => end <= start + (minutes + 15) * minuteMs) ?? all[0]
}
