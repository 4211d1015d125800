import { computed, effect, signal, untracked } from '@preact/signals'
import { api, call, type Schema } from '../api/client.ts'
import { asProblem, type Problem } from '../api/problem.ts'
import { openStream, type Stream } from '../api/stream.ts'
import { minute, now, serverNow } from './clock.ts'
import { account, resume, staysSignedIn } from './session.ts'
import { readStored, removeStored, writeStored } from './storage.ts'
import { listen, tell } from './tabs.ts'

export type Reservation = Schema<'Reservation'>
export type WaitlistEntry = Schema<'WaitlistEntry'>
export type Notification = Schema<'Notification'>

/** Mine is what the server has said about the user's seats. */
export interface Mine {
  /** Id of the user. */
  user: string
  reservations: readonly Reservation[]
  entries: readonly WaitlistEntry[]
  /** The server's time at which it was true, in milliseconds since 1970. */
  asOf: number
  /** End of the session, RFC 3339. After it, this device no longer shows the state. */
  until: string
}

const key = 'dlsms.mine'
/** Set while the user stays signed in: see state/session.ts. */
const staying = 'dlsms.stay'

/** mine is the last known state; undefined: nothing is known. It may be of the last visit: see mineFresh. */
export const mine = signal<Mine | undefined>(stored())

/** mineFresh tells that the state is of this visit. Otherwise the page shows "as of" with it. */
export const mineFresh = signal(false)

/** mineProblem is why the last attempt to load failed. */
export const mineProblem = signal<Problem | undefined>(undefined)

/** reservations are the user's upcoming and running ones, by start. An offer is not among them. */
export const reservations = computed<readonly Reservation[]>(() =>
  (mine.value?.reservations ?? [])
    .filter(
      (r) => r.status === 'RESERVATION_STATUS_CONFIRMED' || r.status === 'RESERVATION_STATUS_CHECKED_IN',
    )
    .filter((r) => ms(r.endTime) > minute.value),
)

/** entries are the user's open entries of waitlists, with those that have an offer. */
export const entries = computed<readonly WaitlistEntry[]>(() =>
  (mine.value?.entries ?? []).filter(
    (e) =>
      e.status === 'WAITLIST_STATUS_OFFERED' ||
      (e.status === 'WAITLIST_STATUS_WAITING' && ms(e.endTime) > minute.value),
  ),
)

/** offers are the entries whose offer can be claimed now, the one that expires first at the front. */
export const offers = computed<readonly WaitlistEntry[]>(() =>
  entries.value
    .filter((e) => e.status === 'WAITLIST_STATUS_OFFERED' && ms(e.offerExpiresAt) > now.value)
    .sort((a, b) => ms(a.offerExpiresAt) - ms(b.offerExpiresAt)),
)

/** present is the reservation of this moment: the user is checked in, or can check in. */
export const present = computed<Reservation | undefined>(() =>
  reservations.value.find(
    (r) => r.status === 'RESERVATION_STATUS_CHECKED_IN' || ms(r.checkInOpensAt) <= now.value,
  ),
)

/** reservationAt returns the user's reservation that overlaps a window, in milliseconds; with the seat '' the first. */
export function reservationAt(seat: string, from: number, to: number): Reservation | undefined {
  return reservations.value.find(
    (r) => (seat === '' || r.seat?.id === seat) && ms(r.startTime) < to && ms(r.endTime) > from,
  )
}

function ms(time: string | undefined): number {
  return time === undefined ? 0 : Date.parse(time)
}

let running: Promise<void> | undefined
let again = false

/** loadMine reads the reservations and entries. A call during another one makes it read once more. */
export function loadMine(): Promise<void> {
  if (running !== undefined) {
    again = true
    return running
  }
  running = (async () => {
    try {
      do {
        again = false
        await read()
      } while (again)
    } finally {
      running = undefined
    }
  })()
  return running
}

async function read(): Promise<void> {
  const user = account.value?.user.id
  if (user === undefined) return
  try {
    const asOf = serverNow()
    const before = version
    const [{ reservations: all }, { entries: waiting }] = await Promise.all([
      call(api.GET('/v1/reservations', { params: { query: { pageSize: 100 } } })),
      call(api.GET('/v1/waitlist')),
    ])
    if (account.value?.user.id !== user) return
    if (version !== before) {
      again = true // an own action was answered in between: this answer may be older
      return
    }
    set({ user, reservations: all, entries: waiting, asOf, until: account.value.expiresAt })
    mineFresh.value = true
    mineProblem.value = undefined
  } catch (e) {
    mineProblem.value = asProblem(e)
  }
}

function set(value: Mine): void {
  mine.value = value
  if (staysSignedIn()) writeStored(key, JSON.stringify(value))
}

/** The number of own actions that were answered. */
let version = 0

/** The status in the answers to the user's own actions, so that no notice repeats it. */
const told = new Map<string, Reservation['status']>()

/** putReservation shows the answer of an own action at once, and lets the other tabs read again. */
export function putReservation(r: Reservation): void {
  told.set(r.id, r.status)
  version++
  const m = mine.value
  if (m !== undefined) {
    const others = m.reservations.filter((other) => other.id !== r.id)
    set({ ...m, reservations: [...others, r].sort((a, b) => ms(a.startTime) - ms(b.startTime)) })
  }
  tell('reservations-changed')
  void loadMine()
}

/** putEntry shows the answer of an own action on a waitlist at once, and lets the other tabs read again. */
export function putEntry(e: WaitlistEntry): void {
  version++
  const m = mine.value
  if (m !== undefined) set({ ...m, entries: [...m.entries.filter((other) => other.id !== e.id), e] })
  tell('reservations-changed')
  void loadMine()
}

/** claim accepts an offer and returns the reservation. */
export async function claim(entry: string): Promise<Reservation | undefined> {
  try {
    const answer = await call(
      api.POST('/v1/waitlist/{entryId}:claim', { params: { path: { entryId: entry } }, body: {} }),
    )
    if (answer.entry !== undefined) putEntry(answer.entry)
    if (answer.reservation !== undefined) putReservation(answer.reservation)
    return answer.reservation
  } catch (e) {
    void loadMine() // the offer may have ended
    throw e
  }
}

/** leaveWaitlist gives up a place in a waitlist, or declines its offer. */
export async function leaveWaitlist(entry: string): Promise<void> {
  try {
    const answer = await call(
      api.POST('/v1/waitlist/{entryId}:leave', { params: { path: { entryId: entry } }, body: {} }),
    )
    if (answer.entry !== undefined) putEntry(answer.entry)
  } catch (e) {
    void loadMine()
    throw e
  }
}

/** cancel cancels a reservation. */
export async function cancel(reservation: string): Promise<void> {
  try {
    const answer = await call(
      api.POST('/v1/reservations/{reservationId}:cancel', {
        params: { path: { reservationId: reservation } },
        body: {},
      }),
    )
    if (answer.reservation !== undefined) putReservation(answer.reservation)
  } catch (e) {
    void loadMine()
    throw e
  }
}

/** news are the notifications that the user has not dismissed, newest last. Offers are in `offers`. */
export const news = signal<readonly Notification[]>([])

/** dismiss removes a notification from the news. */
export function dismiss(id: string): void {
  news.value = news.value.filter((n) => n.id !== id)
}

const listeners = new Set<(n: Notification) => void>()

/** onNotification calls f with each notification that arrives, and returns a function that ends that. */
export function onNotification(f: (n: Notification) => void): () => void {
  listeners.add(f)
  return () => void listeners.delete(f)
}

function receive(n: Notification): void {
  lastId = n.id
  remember()
  void loadMine()
  // The page has already shown the result of the user's own action.
  const known = told.get(n.reservationId) === n.status
  if (!known && n.kind !== 'NOTIFICATION_KIND_SEAT_OFFERED') news.value = [...news.value.slice(-4), n]
  for (const f of listeners) f(n)
}

/** Kinds that a user should still learn of when the page was closed as they arrived. */
const lasting = new Set<Notification['kind']>([
  'NOTIFICATION_KIND_CANCELLED_BY_LIBRARY',
  'NOTIFICATION_KIND_NO_SHOW',
  'NOTIFICATION_KIND_RESERVED_BY_LIBRARY',
  'NOTIFICATION_KIND_DEADLINE_MOVED',
  'NOTIFICATION_KIND_OFFER_EXPIRED',
])
const seen = 'dlsms.seen' // id of the last notification, and of its user
let lastId = '0'
let stream: Stream | undefined

/** notificationStream is the user's stream, so that the page tells when its connection is lost. */
export const notificationStream = signal<Stream | undefined>(undefined)

async function subscribe(user: string): Promise<void> {
  const [seenBy, seenId] = (readStored(seen) ?? '').split(' ')
  const since = seenBy === user ? seenId : undefined
  lastId = since ?? '0'
  const started = serverNow()
  try {
    const missed: Notification[] = []
    for (let full = true; full;) {
      const query = { afterId: lastId, pageSize: 500 }
      const { notifications } = await call(api.GET('/v1/notifications', { params: { query } }))
      missed.push(...notifications)
      lastId = notifications.at(-1)?.id ?? lastId
      full = notifications.length === query.pageSize
    }
    if (account.value?.user.id !== user) return
    remember()
    if (since !== undefined) {
      const recent = missed.filter((n) => lasting.has(n.kind) && ms(n.createdAt) > started - 86_400_000)
      news.value = [...news.value, ...recent.slice(-3)]
    }
    // The first reading of the reservations may have been too early for these.
    if (missed.some((n) => ms(n.createdAt) > started - 10_000)) void loadMine()
  } catch (e) {
    asProblem(e) // the stream begins with the notifications after the last known one
  }
  if (account.value?.user.id !== user || stream !== undefined) return
  stream = openStream({
    url: () => `/v1/notifications:subscribe?afterId=${lastId}`,
    onEvent: (name, data) => {
      const { notification } = data as Schema<'SubscribeResponse'>
      if (name === 'notification' && notification !== undefined) receive(notification)
    },
    onReopen: () => void loadMine(),
  })
  notificationStream.value = stream
}

function remember(): void {
  const user = account.value?.user.id
  if (user !== undefined && staysSignedIn()) writeStored(seen, `${user} ${lastId}`)
}

/** The state follows the session: it is loaded after the sign-in, and removed at the sign-out. */
let loadedFor: string | undefined
effect(() => {
  const user = account.value === undefined ? undefined : account.value === null ? null : account.value.user.id
  untracked(() => {
    if (user === undefined) return
    if (user === loadedFor) {
      // A new session of the same user: the server has refused the stream of the old one.
      if (user !== null && stream?.state.value.kind === 'refused') {
        stream.close()
        stream = undefined
        void subscribe(user)
      }
      return
    }
    const keep = user === null ? offlineStart() : mine.value?.user === user
    if (!keep) forget()
    loadedFor = user ?? undefined
    if (user === null) return
    void loadMine()
    void subscribe(user)
  })
})

/** endedHere are the reservations that the user has ended on this page, which needs no notification. */
export const endedHere = new Set<string>()

/** offlineStart tells that the user stays signed in, but the network did not let the page resume the session. */
function offlineStart(): boolean {
  return loadedFor === undefined && readStored(staying) !== null
}

function forget(): void {
  stream?.close()
  stream = undefined
  notificationStream.value = undefined
  mine.value = undefined
  mineFresh.value = false
  mineProblem.value = undefined
  news.value = []
  told.clear()
  removeStored(key)
  removeStored(seen)
}

listen((message) => {
  if (message === 'reservations-changed') void loadMine()
})
document.addEventListener('visibilitychange', () => {
  if (document.visibilityState === 'visible') void loadMine()
})
addEventListener('online', () => {
  if (account.value === null && readStored(staying) !== null) void resume()
  else void loadMine()
})

function stored(): Mine | undefined {
  try {
    const value = JSON.parse(readStored(key) ?? 'null') as Mine | null
    if (value !== null && Date.parse(value.until) > Date.now()) return value
    removeStored(key)
    return undefined
  } catch {
    return undefined
  }
}
