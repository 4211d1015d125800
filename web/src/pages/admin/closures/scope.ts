import type { Schema } from '../../../api/client.ts'
import { ts } from '../../../i18n/text.ts'

type Closure = Schema<'Closure'>

/** stateOf returns whether a closure holds at a time, in milliseconds since 1970. */
export function stateOf(c: Closure, at: number): 'active' | 'coming' | 'ended' | 'lifted' {
  if (c.liftedAt !== undefined) return 'lifted'
  if (c.endTime !== undefined && Date.parse(c.endTime) <= at) return 'ended'
  return c.startTime !== undefined && Date.parse(c.startTime) > at ? 'coming' : 'active'
}

/** scopeText returns what a closure closes: an area, some seats, or the whole branch. */
export function scopeText(c: Pick<Closure, 'area' | 'seatIds'>, labels: ReadonlyMap<string, string>): string {
  if (c.area !== '') return c.area
  if (c.seatIds.length === 0) return ts().hours.wholeBranch
  const known = c.seatIds.slice(0, 8).map((id) => labels.get(id) ?? id)
  const rest = c.seatIds.length - known.length
  return ts().hours.seats(known.join(', ') + (rest > 0 ? ` + ${rest}` : ''))
}
