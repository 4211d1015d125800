import { language } from './text.ts'
import { serverNow } from '../state/clock.ts'

/** Times of the page are in the time zone of a branch, whatever the zone of the device. */

const formats = new Map<string, Intl.DateTimeFormat>()

function format(zone: string, options: Intl.DateTimeFormatOptions): Intl.DateTimeFormat {
  const locale = language.value === 'en' ? 'en-GB' : language.value // 24 hours, as on the library's door
  const key = locale + zone + JSON.stringify(options)
  let f = formats.get(key)
  if (f === undefined) formats.set(key, (f = new Intl.DateTimeFormat(locale, { timeZone: zone, ...options })))
  return f
}

/** clock returns the time of day, such as 14:30. */
export function clock(time: Date | string | number, zone: string): string {
  return format(zone, { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' }).format(new Date(time))
}

/** day returns a short date, such as Tue 2 Dec. */
export function day(time: Date | string | number, zone: string): string {
  return format(zone, { weekday: 'short', day: 'numeric', month: 'short' }).format(new Date(time))
}

/** longDay returns a date, such as Tuesday, 2 December 2026. */
export function longDay(time: Date | string | number, zone: string): string {
  return format(zone, { weekday: 'long', day: 'numeric', month: 'long', year: 'numeric' }).format(
    new Date(time),
  )
}

/** dayAndClock returns the time of day, and the date if it is not today. */
export function dayAndClock(time: Date | string | number, zone: string): string {
  const at = clock(time, zone)
  return dateOf(time, zone) === dateOf(serverNow(), zone) ? at : `${day(time, zone)}, ${at}`
}

/** dateOf returns the date in a zone as YYYY-MM-DD. */
export function dateOf(time: Date | string | number, zone: string): string {
  const p = parts(new Date(time).getTime(), zone)
  return `${pad(p.year, 4)}-${pad(p.month)}-${pad(p.day)}`
}

/** addDays returns the date some days after a date, both as YYYY-MM-DD. */
export function addDays(date: string, days: number): string {
  return new Date(Date.parse(date + 'T00:00:00Z') + days * 86_400_000).toISOString().slice(0, 10)
}

/** weekdayOf returns the day of the week of a date: 1 is Monday, 7 is Sunday. */
export function weekdayOf(date: string): number {
  return new Date(date + 'T00:00:00Z').getUTCDay() || 7
}

/** weekdayName returns the name of a day of the week: 1 is Monday. */
export function weekdayName(weekday: number, width: 'short' | 'long' = 'long'): string {
  return format('UTC', { weekday: width }).format(new Date(Date.UTC(2024, 0, weekday))) // 2024-01-01 is a Monday
}

/**
 * instant returns the moment of a date (YYYY-MM-DD) and a time of day (HH:MM) in a zone. A time that
 * the clocks skip is moved forward by the hour that they skip; of a time that comes twice it is the
 * first.
 */
export function instant(date: string, time: string, zone: string): Date {
  const [hour = 0, minute = 0] = time.split(':').map(Number)
  const local = Date.parse(date + 'T00:00:00Z') + (hour * 60 + minute) * 60_000
  // The offset at the moment decides; it may differ from the offset at the guess by a change of clocks.
  const before = local - offset(local - 86_400_000, zone)
  const after = local - offset(local + 86_400_000, zone)
  const valid = [before, after].filter((utc) => utc + offset(utc, zone) === local)
  return new Date(valid.length > 0 ? Math.min(...valid) : before)
}

/** offset returns how far a zone is ahead of UTC at a moment, in milliseconds. */
function offset(utc: number, zone: string): number {
  const p = parts(utc, zone)
  return Date.UTC(p.year, p.month - 1, p.day, p.hour, p.minute, p.second) - Math.floor(utc / 1000) * 1000
}

interface Parts {
  year: number
  month: number
  day: number
  hour: number
  minute: number
  second: number
}

const partFormats = new Map<string, Intl.DateTimeFormat>()

function parts(utc: number, zone: string): Parts {
  let f = partFormats.get(zone)
  if (f === undefined) {
    f = new Intl.DateTimeFormat('en-US-u-ca-gregory-nu-latn', {
      timeZone: zone,
      hourCycle: 'h23',
      year: 'numeric',
      month: 'numeric',
      day: 'numeric',
      hour: 'numeric',
      minute: 'numeric',
      second: 'numeric',
    })
    partFormats.set(zone, f)
  }
  const result: Parts = { year: 0, month: 0, day: 0, hour: 0, minute: 0, second: 0 }
  for (const { type, value } of f.formatToParts(utc)) {
    if (type in result) result[type as keyof Parts] = Number(value)
  }
  return result
}

function pad(n: number, width = 2): string {
  return String(n).padStart(width, '0')
}

/** countdown returns the time that is left, such as 4:05, or 1:02:09. */
export function countdown(milliseconds: number): string {
  const s = Math.max(0, Math.ceil(milliseconds / 1000))
  const h = Math.floor(s / 3600)
  const m = Math.floor((s % 3600) / 60)
  return h > 0 ? `${h}:${pad(m)}:${pad(s % 60)}` : `${m}:${pad(s % 60)}`
}

/** number returns a number as the language writes it. */
export function number(n: number, options?: Intl.NumberFormatOptions): string {
  return new Intl.NumberFormat(language.value === 'en' ? 'en-GB' : language.value, options).format(n)
}
