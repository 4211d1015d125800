import { clock, dateOf, day, dayAndClock } from '../../i18n/time.ts'
import { t } from '../../i18n/text.ts'

/** ms returns a time of the API in milliseconds since 1970; 0: it is not set. */
export function ms(time: string | undefined): number {
  return time === undefined ? 0 : Date.parse(time)
}

/** span returns a window in words, such as "Tue 2 Dec, 14:00 to 16:00"; without the date if it is today. */
export function span(from: string | undefined, to: string | undefined, zone: string): string {
  const start = ms(from)
  const end = ms(to)
  const last = dateOf(start, zone) === dateOf(end - 1, zone) ? clock(end, zone) : dayAndClock(end, zone)
  return t().common.span(dayAndClock(start, zone), last)
}

/** spanWithDay returns a window in words, always with the date. */
export function spanWithDay(from: string | undefined, to: string | undefined, zone: string): string {
  return `${day(ms(from), zone)}, ${t().common.span(clock(ms(from), zone), clock(ms(to), zone))}`
}

/** shortLength returns a length of time, such as "1 h 30 min". */
export function shortLength(milliseconds: number): string {
  const minutes = Math.max(0, Math.round(milliseconds / 60_000))
  return t().now.hoursMinutes(Math.floor(minutes / 60), minutes % 60)
}

/**
 * ends returns times at which a reservation from `from` may end: full and half hours, at least 20 minutes and
 * at most `most` minutes later, and the last possible end `limit` if that is near. All are in
 * milliseconds. A library may allow only such times; the clocks of some zones differ from UTC by a
 * quarter of an hour.
 */
export function ends(from: number, most: number, limit: number, zone: string): number[] {
  const half = 30 * 60_000
  const shift = (Number(clock(from, zone).slice(-2)) - Math.floor((from % 3_600_000) / 60_000)) * 60_000
  const shortest = from + 20 * 60_000
  const all: number[] = []
  const last = Math.min(from + most * 60_000, limit)
  for (let end = Math.ceil((shortest + shift) / half) * half - shift; end <= last; end += half) {
    // After two hours, full hours are enough.
    if (end <= from + 150 * 60_000 || (end + shift) % 3_600_000 === 0) all.push(end)
  }
  if (limit >= from + 15 * 60_000 && limit < from + most * 60_000 && all.at(-1) !== limit) all.push(limit)
  return all
}
