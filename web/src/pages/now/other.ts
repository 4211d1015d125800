import { allSeats, plan, type Seat } from '../../state/seats.ts'
import { freeUntil } from './look.ts'

/**
 * nextBest returns the free seats that a user may want instead of a seat, the best first: those with
 * the same amenities before the others, then by the distance on the plan.
 */
export function nextBest(lost: Seat, from: number, least: number, count: number): Seat[] {
  const places = plan.peek().places
  const here = places.get(lost.id)
  const cost = (s: Seat): number => {
    const there = places.get(s.id)
    const missing = lost.amenities.filter((a) => !s.amenities.includes(a)).length
    if (here === undefined || there === undefined) return missing * 1e6
    return (
      missing * 1e6 + (there.floor === here.floor ? 0 : 1e5) + Math.hypot(there.x - here.x, there.y - here.y)
    )
  }
  return allSeats()
    .filter((s) => s.id !== lost.id && s.available && freeUntil(s) - from >= least)
    .map((s) => ({ s, cost: cost(s) }))
    .sort((a, b) => a.cost - b.cost)
    .slice(0, count)
    .map(({ s }) => s)
}
