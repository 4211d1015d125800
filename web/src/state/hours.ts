import type { Schema } from '../api/client.ts'
import { addDays, dateOf, instant, weekdayOf } from '../i18n/time.ts'

/** Span is a half-open span of time in milliseconds since 1970. */
export interface Span {
  from: number
  to: number
}

type Hours = Pick<Schema<'Branch'>, 'timezone' | 'hours' | 'specialDays'>

/** openSpans returns the spans that begin on a date (YYYY-MM-DD) of a branch. A branch without hours is always open. */
export function openSpans(branch: Hours, date: string): Span[] {
  const zone = branch.timezone
  const special = branch.specialDays.find((d) => d.day === date)
  if (special === undefined && branch.hours.length === 0) {
    return [
      {
        from: instant(date, '00:00', zone).getTime(),
        to: instant(addDays(date, 1), '00:00', zone).getTime(),
      },
    ]
  }
  const hours = special?.hours ?? branch.hours.filter((h) => h.weekday === weekdayOf(date))
  return hours
    .map(({ opens = '00:00', closes: end = '24:00' }) => {
      const from = instant(date, opens, zone).getTime()
      // "24:00" is the midnight at the end of the day; a time that is not after opens is on the next day.
      const night = end.startsWith('24') || end.slice(0, 5) <= opens.slice(0, 5)
      const closes = end.startsWith('24') ? '00:00' : end
      return { from, to: instant(night ? addDays(date, 1) : date, closes, zone).getTime() }
    })
    .sort((a, b) => a.from - b.from)
}

/** openAt returns the span in which the branch is open at a moment; one that never closes ends at Infinity. */
export function openAt(branch: Hours, at: number): Span | undefined {
  if (branch.hours.length === 0 && branch.specialDays.length === 0) return { from: -Infinity, to: Infinity }
  let found: Span | undefined
  const today = dateOf(at, branch.timezone)
  for (let day = -1; day < 9; day++) {
    for (const s of openSpans(branch, addDays(today, day))) {
      if (found === undefined && s.from <= at && at < s.to) found = { ...s }
      else if (found !== undefined && s.from <= found.to) found.to = Math.max(found.to, s.to)
      else if (found !== undefined) return found
    }
  }
  // Open for more than a week: the end is of no use.
  return found === undefined ? undefined : found.to - at > 7 * 86_400_000 ? { ...found, to: Infinity } : found
}

/** opensNext returns the next opening after a moment, within three weeks. */
export function opensNext(branch: Hours, at: number): number | undefined {
  const today = dateOf(at, branch.timezone)
  for (let day = 0; day < 21; day++) {
    for (const s of openSpans(branch, addDays(today, day))) if (s.from > at) return s.from
  }
  return undefined
}

/** openDuring tells whether the branch is open for a whole span. */
export function openDuring(branch: Hours, span: Span): boolean {
  const open = openAt(branch, span.from)
  return open !== undefined && span.to <= open.to
}
