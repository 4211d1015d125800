import { api, call, type Schema } from '../../../api/client.ts'
import { Problem } from '../../../api/problem.ts'
import { addDays, dateOf, weekdayOf } from '../../../i18n/time.ts'

export type UsageRow = Schema<'UsageRow'>
export type Usage = Schema<'GetUsageResponse'>
export type By = 'HOUR' | 'DAY' | 'WEEKDAY_HOUR' | 'AREA' | 'GROUP'

/** UsageQuery selects the days and the place of a report. */
export interface UsageQuery {
  from: string
  to: string
  branch: string
  area: string
}

/** A replica makes one report at a time, so a report waits for that of a colleague. */
const attempts = 6

/** readUsage reads a report. */
export async function readUsage(q: UsageQuery, by: By): Promise<Usage> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await call(api.GET('/v1/reports/usage', { params: { query: { ...q, by: `USAGE_BY_${by}` } } }))
    } catch (e) {
      if (!(e instanceof Problem) || e.reason !== 'OVERLOADED' || attempt === attempts) throw e
      await new Promise((done) => setTimeout(done, (e.retryAfter ?? 1) * 1000))
    }
  }
}

/** Figures are the numbers of a row. The API has int64 as texts. */
export interface Figures {
  open: number
  reserved: number
  used: number
  reservations: number
  checkIns: number
  noShows: number
  cancelled: number
  cancelledByLibrary: number
  refused: number
  joins: number
  offers: number
  claims: number
}

/** figuresOf returns the numbers of a row. Minutes are whole. */
export function figuresOf(r: UsageRow): Figures {
  return {
    open: Number(r.openMinutes),
    reserved: Number(r.reservedMinutes),
    used: Number(r.usedMinutes),
    reservations: r.reservations,
    checkIns: r.checkIns?.total ?? 0,
    noShows: r.noShows,
    cancelled: r.cancelled,
    cancelledByLibrary: r.cancelledByLibrary,
    refused: r.refusedTaken,
    joins: r.waitlistJoins,
    offers: r.offers,
    claims: r.claims,
  }
}

/** sum adds the figures of rows. */
export function sum(rows: readonly UsageRow[]): Figures {
  const total: Figures = {
    open: 0,
    reserved: 0,
    used: 0,
    reservations: 0,
    checkIns: 0,
    noShows: 0,
    cancelled: 0,
    cancelledByLibrary: 0,
    refused: 0,
    joins: 0,
    offers: 0,
    claims: 0,
  }
  for (const r of rows) {
    const f = figuresOf(r)
    for (const key of Object.keys(total) as (keyof Figures)[]) total[key] += f[key]
  }
  return total
}

/** share returns a part of a whole, from 0 to 1. */
export function share(part: number, whole: number): number {
  return whole === 0 ? 0 : part / whole
}

/** Preset is a span of days that librarians often want. */
export type Preset = 'today' | 'thisWeek' | 'lastWeek' | 'thisMonth' | 'lastMonth' | 'days28'

/** presetDays returns the days of a preset. */
export function presetDays(preset: Preset, at: number, zone: string): { from: string; to: string } {
  const today = dateOf(at, zone)
  const monday = addDays(today, 1 - weekdayOf(today))
  const first = today.slice(0, 8) + '01'
  const lastOfMonth = addDays(first, -1)
  switch (preset) {
    case 'today':
      return { from: today, to: today }
    case 'thisWeek':
      return { from: monday, to: today }
    case 'lastWeek':
      return { from: addDays(monday, -7), to: addDays(monday, -1) }
    case 'thisMonth':
      return { from: first, to: today }
    case 'lastMonth':
      return { from: lastOfMonth.slice(0, 8) + '01', to: lastOfMonth }
    case 'days28':
      return { from: addDays(today, -27), to: today }
  }
}
