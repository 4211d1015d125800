import { effect, signal, untracked } from '@preact/signals'
import { api, call, newKey, type Schema } from '../../api/client.ts'
import { asProblem, Problem } from '../../api/problem.ts'
import { serverNow } from '../../state/clock.ts'
import { loadMine, putEntry, putReservation, type Reservation, type WaitlistEntry } from '../../state/mine.ts'
import { account } from '../../state/session.ts'

/** SeatRequest is what the user wants once: a seat, or a place in its waitlist. */
export interface SeatRequest {
  kind: 'book' | 'wait'
  seat: string
  label: string
  /** Milliseconds since 1970; undefined: from now on. */
  from?: number | undefined
  to: number
}

export type Booking =
  | { state: 'none' }
  /** The answer is awaited. slow: it takes long, or there is no connection; it is not known whether it arrived. */
  | { state: 'sending'; request: SeatRequest; slow: boolean }
  | { state: 'booked'; request: SeatRequest; reservation: Reservation }
  | { state: 'waiting'; request: SeatRequest; entry: WaitlistEntry }
  | { state: 'failed'; request: SeatRequest; problem: Problem; check?: Schema<'CheckReservationResponse'> }

/** booking is the last request of the user and what became of it. It goes on while its sheet is closed. */
export const booking = signal<Booking>({ state: 'none' })

/** Rules are limits of the library that an answer has told, in milliseconds. */
export interface Rules {
  least: number
  most: number
  step: number
}

const standardRules: Rules = { least: 15 * 60_000, most: 12 * 3_600_000, step: 0 }
/** rules are the known limits by area, "branch area". */
export const rules = signal<ReadonlyMap<string, Rules>>(new Map())

/** rulesOf returns the limits of an area, as far as they are known. */
export function rulesOf(branch: string, area: string): Rules {
  return rules.value.get(`${branch} ${area}`) ?? standardRules
}

/** learn keeps the limits that WINDOW_NOT_ALLOWED has in its metadata. */
export function learn(branch: string, area: string, metadata: Readonly<Record<string, string>>): void {
  const ms = (name: string, otherwise: number): number =>
    Number(metadata[name] ?? Number.NaN) * 1000 || otherwise
  const learnt: Rules = {
    least: ms('min_reservation', standardRules.least),
    most: ms('max_reservation', standardRules.most),
    step: ms('step', 0),
  }
  rules.value = new Map(rules.value).set(`${branch} ${area}`, learnt)
}

let current = 0
let wake = (): void => {}

/**
 * book asks for what the user wants until there is an answer. All attempts have one Idempotency-Key,
 * so a request whose answer was lost books nothing twice.
 */
export async function book(request: SeatRequest): Promise<void> {
  if (booking.value.state === 'sending') return
  const mine = ++current
  const user = account.value?.user.id
  const key = newKey()
  booking.value = { state: 'sending', request, slow: !navigator.onLine }
  const slow = (): void => {
    if (mine === current && booking.value.state === 'sending')
      booking.value = { state: 'sending', request, slow: true }
  }
  const timer = setTimeout(slow, 4000)
  addEventListener('offline', slow)
  try {
    for (let failures = 0; ; failures++) {
      try {
        const result = await attempt(request, key, user)
        if (mine === current) booking.value = result
        return
      } catch (e) {
        const problem = e instanceof DOMException ? Problem.offline() : asProblem(e)
        if (mine !== current) return
        if (!problem.temporary || account.value?.user.id !== user) {
          booking.value = { state: 'failed', request, problem }
          if (!problem.signedOut) void explain(mine, request)
          return
        }
        slow()
        await pause(Math.max((problem.retryAfter ?? 0) * 1000, Math.min(1000 * 2 ** failures, 15_000)))
        if (mine !== current) return
      }
    }
  } finally {
    clearTimeout(timer)
    removeEventListener('offline', slow)
  }
}

async function attempt(request: SeatRequest, key: string, user: string | undefined): Promise<Booking> {
  const options = { params: { header: { 'Idempotency-Key': key } }, signal: AbortSignal.timeout(20_000) }
  const endTime = iso(request.to)
  if (request.kind === 'wait') {
    const startTime = iso(request.from ?? serverNow())
    // The content of a repeated request must be the same.
    request.from = Date.parse(startTime)
    const { entry } = await call(
      api.POST('/v1/waitlist', { ...options, body: { seatId: request.seat, startTime, endTime } }),
    )
    if (entry === undefined) throw Problem.offline()
    if (account.value?.user.id === user) putEntry(entry)
    return { state: 'waiting', request, entry }
  }
  const startTime = request.from === undefined ? {} : { startTime: iso(request.from) }
  const { reservation } = await call(
    api.POST('/v1/reservations', { ...options, body: { seatId: request.seat, ...startTime, endTime } }),
  )
  if (reservation === undefined) throw Problem.offline()
  if (account.value?.user.id === user) putReservation(reservation)
  return { state: 'booked', request, reservation }
}

/** explain asks for all broken rules and for alternatives. */
async function explain(mine: number, request: SeatRequest): Promise<void> {
  void loadMine()
  const check = await checkRequest(request)
  const b = booking.value
  if (check !== undefined && mine === current && b.state === 'failed') booking.value = { ...b, check }
}

/** checkRequest returns every rule that a request would break now; undefined: it is not known. */
export async function checkRequest(
  request: SeatRequest,
): Promise<Schema<'CheckReservationResponse'> | undefined> {
  try {
    const startTime = request.from === undefined ? {} : { startTime: iso(request.from) }
    const query = { seatId: request.seat, ...startTime, endTime: iso(request.to) }
    return await call(api.GET('/v1/reservations:check', { params: { query } }))
  } catch (e) {
    asProblem(e)
    return undefined
  }
}

function pause(milliseconds: number): Promise<void> {
  return new Promise((done) => {
    const timer = setTimeout(() => wake(), milliseconds)
    wake = () => {
      clearTimeout(timer)
      removeEventListener('online', wake)
      done()
    }
    addEventListener('online', wake)
  })
}

/** forgetBooking ends the interest in the last request. A request that is under way may still succeed. */
export function forgetBooking(): void {
  current++
  booking.value = { state: 'none' }
  wake()
}

/** settle forgets what is settled, when its sheet is closed; a request that is under way goes on. */
export function settle(): void {
  if (booking.value.state !== 'sending') forgetBooking()
}

/** A request ends when another user signs in on this page. */
let owner: string | undefined
effect(() => {
  const user = account.value?.user.id
  if (user === undefined || user === owner) return
  if (owner !== undefined) untracked(forgetBooking)
  owner = user
})

function iso(at: number): string {
  return new Date(at).toISOString()
}
