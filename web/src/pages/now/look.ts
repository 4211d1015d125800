import { computed } from '@preact/signals'
import { t } from '../../i18n/text.ts'
import { dayAndClock } from '../../i18n/time.ts'
import { minute } from '../../state/clock.ts'
import { reservations, type Reservation } from '../../state/mine.ts'
import type { Seat } from '../../state/seats.ts'
import { chosen, closedSeat, closesAt, zone } from './choice.ts'

/** Look is the state of a seat as a user sees it. */
export type Look = 'free' | 'mine' | 'taken' | 'closed' | 'out'

export const looks: readonly Look[] = ['free', 'mine', 'taken', 'closed', 'out']

/** The user's own seats now or in the chosen window, as text, so that it changes only with its content. */
const own = computed(() => {
  const from = chosen.value?.from ?? minute.value
  const to = chosen.value?.to ?? from + 60_000
  return JSON.stringify(
    reservations.value
      .filter(
        (r) =>
          Math.min(ms(r.startTime), chosen.value === undefined ? ms(r.checkInOpensAt) : Infinity) < to &&
          ms(r.endTime) > from,
      )
      .map((r) => [r.seat?.id ?? '', r]),
  )
})
const ownBySeat = computed(() => new Map(JSON.parse(own.value) as [string, Reservation][]))

function ms(time: string | undefined): number {
  return time === undefined ? Infinity : Date.parse(time)
}

/** mineAt returns the user's own reservation of a seat, now or in the chosen window. */
export function mineAt(id: string): Reservation | undefined {
  return ownBySeat.value.get(id)
}

/** freeUntil returns the end of the time for which a free seat can be reserved; Infinity: there is none. */
export function freeUntil(s: Seat): number {
  return Math.min(ms(s.availableUntil), closesAt.value)
}

/** lookOf returns the state of a seat. */
export function lookOf(s: Seat): Look {
  if (mineAt(s.id) !== undefined) return 'mine'
  if (s.available) return 'free'
  if (s.outOfService) return 'out'
  return closedSeat(s) ? 'closed' : 'taken'
}

/** words returns the state of a seat in words, such as "free until 16:00". */
export function words(s: Seat): string {
  const n = t().now
  const time = (at: string | number): string => dayAndClock(at, zone.value)
  const look = lookOf(s)
  switch (look) {
    case 'free':
      return freeUntil(s) === Infinity ? n.look.free : n.freeUntil(time(freeUntil(s)))
    case 'mine': {
      const end = mineAt(s.id)?.endTime
      return end === undefined ? n.look.mine : n.mineUntil(time(end))
    }
    case 'taken':
      if (s.nextAvailableAt === undefined) return n.look.taken
      return chosen.value === undefined
        ? n.takenUntil(time(s.nextAvailableAt))
        : n.takenThen(time(s.nextAvailableAt))
    default:
      return n.look[look]
  }
}

/** nameOf returns the accessible name of a seat. It is the same in the list and on the map. */
export function nameOf(s: Seat): string {
  return [s.label, words(s), ...s.amenities.map((a) => t().common.amenity[a])].join(', ')
}
