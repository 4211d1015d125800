import { batch, computed, signal, type Signal } from '@preact/signals'
import { api, call, type Schema } from '../api/client.ts'
import { asProblem } from '../api/problem.ts'
import { openStream, type Stream } from '../api/stream.ts'
import { layout, type FloorPlanInput, type Plan } from '../map/layout.ts'
import { observeServerTime, serverNow } from './clock.ts'

export type Seat = Schema<'Seat'>
export type Amenity = Schema<'Amenity'>

/** Watched is what the store shows: the seats of a branch, now or in a window. */
export interface Watched {
  branch: string
  /** The window in RFC 3339; undefined: now. */
  window?: { startTime: string; endTime: string } | undefined
}

/**
 * The one store of seats: map and list are views of it. Each seat has a signal of its own, so a change
 * draws one seat. All changes that arrive within a frame are applied together.
 */
const seats = new Map<string, Signal<Seat>>()

/** roster changes when seats come, go, or get another label, area or amenity; not when they get taken or free. */
export const roster = signal(0)

/** pulse changes with each set of changes that is applied. */
export const pulse = signal(0)

/** ready tells that the seats of the branch have arrived; false again after a change of the branch. */
export const ready = signal(false)

/** settling tells that the window has changed, and its state has not arrived. */
export const settling = signal(false)

/** seatStream is the stream of the store. */
export const seatStream = signal<Stream | undefined>(undefined)

/** seatsAsOf is the server's time of the last message, in milliseconds since 1970. */
export const seatsAsOf = signal(0)

/** lastChanges are the seats of the last pulse that changed, with their state before. */
export let lastChanges: readonly { before: Seat | undefined; after: Seat | undefined }[] = []

const floorPlan = signal<FloorPlanInput | undefined>(undefined)

/** seat returns the signal of a seat; undefined: the branch has no such seat. */
export function seat(id: string): Signal<Seat> | undefined {
  return seats.get(id)
}

/** allSeats returns the present seats, without a subscription to them. */
export function allSeats(): Seat[] {
  return Array.from(seats.values(), (s) => s.peek())
}

/** plan is the layout of the branch. It changes with the roster only. */
export const plan = computed<Plan>(() => {
  void roster.value
  return layout(allSeats(), floorPlan.value)
})

let watched: Watched | undefined
let stream: Stream | undefined
let parts: Seat[] = []
let pending = new Map<string, Seat | undefined>()
let frame = 0

/** watch shows a branch, now or in a window, and returns a function that ends it. */
export function watch(next: Watched): () => void {
  stream?.close()
  const sameBranch = watched?.branch === next.branch && seats.size > 0
  watched = next
  parts = []
  pending = new Map()
  if (!sameBranch) clear()
  settling.value = true
  void loadPlan(next.branch)
  const query = new URLSearchParams({ branch: next.branch, ...next.window })
  const mine = openStream({ url: () => `/v1/seats:watch?${query.toString()}`, onEvent, onReopen: reopened })
  stream = mine
  seatStream.value = mine
  return () => {
    mine.close()
    if (stream !== mine) return
    stream = undefined
    seatStream.value = undefined
    watched = undefined
  }
}

function clear(): void {
  batch(() => {
    seats.clear()
    floorPlan.value = undefined
    ready.value = false
    roster.value++
    pulse.value++
  })
}

/** The parts of a snapshot that was cut off are of no use: the new connection begins with a whole one. */
function reopened(): void {
  parts = []
  pending = new Map()
}

function onEvent(name: string, data: unknown): void {
  const message = data as Schema<'WatchSeatsResponse'>
  // While the database is away, asOf is the time of the last state: it only moves the clock forward.
  if (message.asOf !== undefined) {
    const asOf = Date.parse(message.asOf)
    if (asOf > serverNow()) observeServerTime(message.asOf)
    seatsAsOf.value = asOf
  }
  if (name === 'snapshot' && message.snapshot !== undefined) {
    parts.push(...message.snapshot.seats)
    if (!message.snapshot.more) replace(parts)
  } else if (name === 'change' && message.change !== undefined) {
    pending.set(message.change.id, message.change)
    schedule()
  } else if (name === 'removed' && message.removed !== undefined) {
    pending.set(message.removed.seatId, undefined)
    schedule()
  }
}

/** replace shows a snapshot: seats that have not changed keep their signal and are not drawn again. */
function replace(all: Seat[]): void {
  parts = []
  pending = new Map(all.map((s) => [s.id, s]))
  for (const id of seats.keys()) if (!pending.has(id)) pending.set(id, undefined)
  apply()
  batch(() => {
    ready.value = true
    settling.value = false
  })
}

function schedule(): void {
  if (frame === 0) frame = requestAnimationFrame(apply)
}

function apply(): void {
  cancelAnimationFrame(frame)
  frame = 0
  const changes = pending
  pending = new Map()
  const done: { before: Seat | undefined; after: Seat | undefined }[] = []
  let moved = false
  batch(() => {
    for (const [id, after] of changes) {
      const known = seats.get(id)
      const before = known?.peek()
      if (after === undefined) {
        moved = seats.delete(id) || moved
      } else if (known === undefined || before === undefined) {
        seats.set(id, signal(after))
        moved = true
      } else if (same(before, after)) {
        continue
      } else {
        if (!sameSeat(before, after)) moved = true
        known.value = after
      }
      done.push({ before, after })
    }
    if (done.length === 0) return
    lastChanges = done
    pulse.value++
    if (moved) roster.value++
  })
  // A librarian has changed the seats: their places may have changed, too.
  if (moved && ready.peek() && watched !== undefined) void loadPlan(watched.branch)
}

function same(a: Seat, b: Seat): boolean {
  return (
    a.available === b.available &&
    a.availableUntil === b.availableUntil &&
    a.nextAvailableAt === b.nextAvailableAt &&
    a.outOfService === b.outOfService &&
    sameSeat(a, b)
  )
}

function sameSeat(a: Seat, b: Seat): boolean {
  return a.label === b.label && a.area === b.area && a.amenities.join() === b.amenities.join()
}

let planWanted = ''
let planAgain = false

/** loadPlan reads the places of the seats. Until they arrive, and if they do not, the map is a grid. */
async function loadPlan(branch: string): Promise<void> {
  if (planWanted === branch) {
    planAgain = true // the answer that is under way may be older than the change
    return
  }
  planWanted = branch
  planAgain = false
  try {
    const answer = await call(api.GET('/v1/branches/{branch}/plan', { params: { path: { branch } } }))
    if (watched?.branch === branch && !samePlan(floorPlan.peek(), answer)) floorPlan.value = answer
  } catch (e) {
    asProblem(e)
  } finally {
    if (planWanted === branch) planWanted = ''
    if (planAgain && watched?.branch === branch) void loadPlan(branch)
  }
}

function samePlan(a: FloorPlanInput | undefined, b: FloorPlanInput): boolean {
  return a !== undefined && JSON.stringify([a.seats, a.areas]) === JSON.stringify([b.seats, b.areas])
}
