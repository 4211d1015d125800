import { useSignal } from '@preact/signals'
import { useEffect, useRef } from 'preact/hooks'
import type { ComponentChildren, JSX } from 'preact'
import { t } from '../../i18n/text.ts'
import { clock, countdown, dateOf, dayAndClock } from '../../i18n/time.ts'
import { Sign } from '../../map/mark.tsx'
import { go, Link, setQuery, signInPath } from '../../router.tsx'
import { loadBranches } from '../../state/branches.ts'
import { minute, now, serverNow } from '../../state/clock.ts'
import { claim, entries, leaveWaitlist, offers, reservationAt, type WaitlistEntry } from '../../state/mine.ts'
import { account } from '../../state/session.ts'
import { pulse, ready, seat, type Seat } from '../../state/seats.ts'
import { readStored, writeStored } from '../../state/storage.ts'
import { Button, useAction } from '../../ui/action.tsx'
import { Amenities } from '../../ui/amenity.tsx'
import { Dialog } from '../../ui/dialog.tsx'
import { Fault } from '../../ui/problem.tsx'
import { book, booking, checkRequest, learn, rulesOf, type SeatRequest } from './booking.ts'
import { chosen, choice, passed, standard, switchSeat, zone } from './choice.ts'
import { ends, preferred } from './ends.ts'
import { durationText } from './head.tsx'
import { freeUntil, lookOf, mineAt, words, type Look } from './look.ts'
import { nextBest } from './other.ts'
import { Booked, Failed, OwnSeat } from './outcome.tsx'
import { Sending } from './sending.tsx'

const lastDuration = 'dlsms.duration'

/** SeatSheet shows a seat and lets the user book it, or offers what comes next. */
export function SeatSheet({ id, onClose }: { id: string; onClose: () => void }): JSX.Element | null {
  const n = t().now
  const s = seat(id)?.value
  const b = booking.value
  // Whether the library has closed the seat is in the branch, which is not live.
  const unavailable = s?.available === false
  useEffect(() => {
    if (unavailable) void loadBranches().catch(() => {})
  }, [id, unavailable])
  if (!ready.value) return null
  if (s === undefined) {
    return (
      <Dialog kind="sheet" title={n.seatGone} onClose={onClose}>
        <p>
          <Button onClick={onClose}>{n.done}</Button>
        </p>
      </Dialog>
    )
  }
  const about = b.state !== 'none' && b.request.seat === id ? b : undefined
  return (
    <Dialog kind="sheet" title={n.seat(s.label)} onClose={onClose}>
      <div class="sheet-seat">
        <p class="row">
          {/* The seat may be reported as taken before the answer says that the user has it. */}
          {about?.state === 'sending' ? (
            s.area
          ) : (
            <>
              <Sign look={lookOf(s)} />{' '}
              <span>
                {s.area} · {words(s)}
              </span>
            </>
          )}
        </p>
        <Amenities of={s.amenities} />
      </div>
      {about?.state === 'sending' ? (
        <Sending booking={about} />
      ) : about?.state === 'booked' ? (
        <Booked id={about.reservation.id} onClose={onClose} />
      ) : (
        <Offer key={id} s={s} onClose={onClose} />
      )}
    </Dialog>
  )
}

/** Offer is what the user can do at a seat now. It changes at once when the seat does. */
function Offer({ s, onClose }: { s: Seat; onClose: () => void }): JSX.Element {
  const n = t().now
  const look = lookOf(s)
  const before = useRef<Look>(look)
  const change = useSignal('')
  const changedAt = useRef(0)
  useEffect(() => {
    if (before.current === look) return
    change.value =
      before.current === 'free' && look === 'taken'
        ? n.justTaken(s.label)
        : look === 'free'
          ? n.justFree(s.label)
          : ''
    before.current = look
    changedAt.current = performance.now()
  }, [look])
  // A button that has just come into the place of another one is not what the user meant to press.
  const careful = (f: () => void) => (): void => {
    if (performance.now() - changedAt.current > 600) f()
  }
  const b = booking.value
  const failed = b.state === 'failed' && b.request.seat === s.id ? b : undefined
  const lost = failed?.problem.reason === 'SEAT_TAKEN'
  const own = mineAt(s.id)
  const offer = offers.value.find((e) => e.seat?.id === s.id)
  return (
    <>
      <p role="status" class="change">
        {lost ? n.justTaken(s.label) : change.value}
      </p>
      {failed !== undefined && !lost && <Failed failed={failed} />}
      {own !== undefined ? (
        <OwnSeat id={own.id} onClose={onClose} />
      ) : offer !== undefined ? (
        <Held entry={offer} />
      ) : look === 'free' && !lost ? (
        <Free s={s} careful={careful} />
      ) : (
        <Taken s={s} careful={careful} lost={lost} />
      )}
    </>
  )
}

/** Held is the offer of a seat to the user, from the waitlist. */
function Held({ entry }: { entry: WaitlistEntry }): JSX.Element {
  const n = t().now
  const z = zone.value
  const action = useAction()
  const left = countdown(Date.parse(entry.offerExpiresAt ?? '') - now.value)
  return (
    <>
      <p class="success" role="status">
        {n.offered}
      </p>
      <p>
        {n.offerWindow(dayAndClock(entry.startTime ?? 0, z), clock(entry.endTime ?? 0, z))}{' '}
        <span role="timer">{n.offerLeft(left)}</span>
      </p>
      <Fault problem={action.problem.value} zone={z} />
      <div class="actions">
        <Button
          kind="main"
          busy={action.busy.value}
          onClick={() => void action.run(async () => void (await claim(entry.id)))}
        >
          {n.claim}
        </Button>
        <Button busy={action.busy.value} onClick={() => void action.run(() => leaveWaitlist(entry.id))}>
          {n.decline}
        </Button>
      </div>
    </>
  )
}

interface Part {
  s: Seat
  careful: (f: () => void) => () => void
}

/** startOf returns the start of what the user wants: the chosen time, or now. */
function startOf(): number {
  return chosen.value?.from ?? Math.max(minute.value, serverNow())
}

function wishedMinutes(): number {
  return choice.value.duration || Number(readStored(lastDuration)) || standard
}

function Free({ s, careful }: Part): JSX.Element {
  const n = t().now
  const z = zone.value
  const rules = rulesOf(s.branch, s.area)
  void minute.value
  const start = startOf()
  const all = ends(start, freeUntil(s), rules, z)
  const window = chosen.value
  const picked = useSignal(0)
  // In a chosen time, its own end is one of the choices.
  if (
    window !== undefined &&
    !all.includes(window.to) &&
    window.to <= freeUntil(s) &&
    window.to - start <= rules.most
  ) {
    all.push(window.to)
    all.sort((a, b) => a - b)
  }
  const end = all.includes(picked.value)
    ? picked.value
    : window !== undefined && all.includes(window.to)
      ? window.to
      : preferred(start, all, wishedMinutes())
  // The rules for this area and this user, before the user meets them as an error.
  const broken = useSignal<Record<string, string>>({})
  useEffect(() => {
    if (!account.value || end === undefined) return
    let current = true
    void checkRequest(requestOf(s, window?.from, all.at(-1) ?? end)).then((check) => {
      if (!current || check === undefined) return
      for (const r of check.broken)
        if (r.reason === 'WINDOW_NOT_ALLOWED') learn(s.branch, s.area, r.metadata ?? {})
      broken.value = Object.fromEntries(
        check.broken.map((r) => [r.reason, r.metadata?.['suspended_until'] ?? '']),
      )
    })
    return () => {
      current = false
    }
  }, [s.id, account.value, window?.from])
  const time = (at: number): string => dayAndClock(at, z)
  const busy = end === undefined ? undefined : busyWith(s, start, end)
  const no =
    'SUSPENDED' in broken.value
      ? t().errors.SUSPENDED(time(Date.parse(broken.value['SUSPENDED'] ?? '')))
      : 'BOOKING_NOT_ALLOWED' in broken.value
        ? t().errors.BOOKING_NOT_ALLOWED
        : ''
  if (passed.value) return <p>{n.passed}</p>
  if (end === undefined) return <p>{n.tooShort(time(freeUntil(s)), durationText(rules.least / 60_000))}</p>
  const main =
    account.value === null ? (
      <Button kind="main" onClick={() => go(signInPath())}>
        {n.signInToBook(time(end))}
      </Button>
    ) : (
      <Button
        kind="main"
        disabled={no !== ''}
        onClick={careful(() => {
          if (picked.value !== 0) writeStored(lastDuration, String(Math.round((end - start) / 60_000)))
          void book(requestOf(s, window?.from, end))
        })}
      >
        {window === undefined ? n.book(time(end)) : n.bookSpan(time(window.from), clock(end, z))}
      </Button>
    )
  return (
    <>
      {all.length > 1 && (
        <fieldset class="bare">
          <legend>{n.howLong}</legend>
          <div class="chips">
            {all.map((e) => {
              const long = durationText(Math.round((e - start) / 60_000))
              return (
                <button
                  key={e}
                  type="button"
                  class="chip end"
                  aria-pressed={e === end}
                  aria-label={n.until(time(e), long)}
                  onClick={() => (picked.value = e)}
                >
                  <strong>{dateOf(e, z) === dateOf(start, z) ? clock(e, z) : time(e)}</strong>{' '}
                  <small>{long}</small>
                </button>
              )
            })}
          </div>
        </fieldset>
      )}
      {no !== '' && (
        <p class="fault" role="alert">
          {no} {n.ask}
        </p>
      )}
      {busy}
      <div class="actions">{main}</div>
    </>
  )
}

/** busyWith tells the user about an own reservation at the same time, before the server does. */
function busyWith(s: Seat, from: number, to: number): ComponentChildren {
  const other = reservationAt('', from, to)
  if (other === undefined || other.seat?.id === s.id) return null
  const z = zone.value
  return (
    <p class="fault">
      {t().now.yourOther(
        other.seat?.label ?? '',
        dayAndClock(other.startTime ?? 0, z),
        dayAndClock(other.endTime ?? 0, z),
      )}{' '}
      <Link href="/me">{t().now.toMine}</Link>
    </p>
  )
}

function requestOf(
  s: Seat,
  from: number | undefined,
  to: number,
  kind: SeatRequest['kind'] = 'book',
): SeatRequest {
  return { kind, seat: s.id, label: s.label, from, to }
}

/** Taken offers, in order, the next best seat, the same seat at another time, and the waitlist. */
function Taken({ s, careful, lost }: Part & { lost: boolean }): JSX.Element {
  const n = t().now
  const z = zone.value
  void pulse.value
  void minute.value
  const window = chosen.value
  const start = startOf()
  const length = window === undefined ? wishedMinutes() * 60_000 : window.to - window.from
  const rules = rulesOf(s.branch, s.area)
  const endOf = (other: Seat): number | undefined => {
    const r = rulesOf(other.branch, other.area)
    if (window !== undefined) return Math.min(window.to, freeUntil(other))
    return preferred(start, ends(start, freeUntil(other), r, z), length / 60_000)
  }
  const others = nextBest(s, start, rules.least, 3)
  const bookOther = (other: Seat, end: number): void => {
    switchSeat(other.id)
    if (account.value) void book(requestOf(other, window?.from, end))
    else go(signInPath())
  }
  const waitable = !s.outOfService && !passed.value && (lost || lookOf(s) === 'taken')
  return (
    <div class="stack">
      <section>
        <h3>{n.instead}</h3>
        {others.length === 0 && <p>{n.noOther}</p>}
        <ul class="plain-list">
          {others.map((other, i) => {
            const end = endOf(other)
            if (end === undefined) return null
            return (
              <li key={other.id}>
                <Button kind={i === 0 ? 'main' : 'plain'} onClick={careful(() => bookOther(other, end))}>
                  {n.bookOther(other.label, dayAndClock(end, z))}
                </Button>{' '}
                <small>
                  {n.nearBy(other.area, other.amenities.map((a) => t().common.amenity[a]).join(', '))}
                </small>
              </li>
            )
          })}
        </ul>
      </section>
      {s.nextAvailableAt !== undefined && <Later s={s} length={length} />}
      {waitable && <Line s={s} from={window?.from} length={length} careful={careful} />}
    </div>
  )
}

/** Later offers the same seat at other times: those that the server proposes, else the next free time. */
function Later({ s, length }: { s: Seat; length: number }): JSX.Element {
  const n = t().now
  const z = zone.value
  const times = useSignal<readonly { from: number; to: number }[]>([])
  const next = Date.parse(s.nextAvailableAt ?? '')
  useEffect(() => {
    if (!account.value) return
    let current = true
    // The half minute is the time until the call arrives: the server proposes times of the same length.
    void checkRequest(requestOf(s, chosen.value?.from, startOf() + length + 30_000)).then((check) => {
      if (!current || check === undefined) return
      times.value = check.alternatives
        .filter((a) => a.seat?.id === s.id)
        .map((a) => ({ from: Date.parse(a.startTime ?? ''), to: Date.parse(a.endTime ?? '') }))
        .slice(0, 2)
    })
    return () => {
      current = false
    }
  }, [s.id, s.nextAvailableAt, account.value])
  const look = (): void => {
    const duration = String(Math.round(length / 60_000))
    setQuery({ date: dateOf(next, z), start: clock(next, z), duration })
  }
  return (
    <section>
      <h3>{n.sameLater}</h3>
      <div class="row">
        {times.value.map((w) => (
          <Button key={w.from} onClick={() => void book(requestOf(s, w.from, w.to))}>
            {n.bookSpan(dayAndClock(w.from, z), clock(w.to, z))}
          </Button>
        ))}
        {times.value.length === 0 && <Button onClick={look}>{n.seeFrom(dayAndClock(next, z))}</Button>}
      </div>
    </section>
  )
}

/** Line is the waitlist of the seat. */
function Line({
  s,
  from,
  length,
  careful,
}: {
  s: Seat
  from: number | undefined
  length: number
  careful: Part['careful']
}): JSX.Element {
  const n = t().now
  const z = zone.value
  const leaving = useAction()
  const entry = entries.value.find((e) => e.seat?.id === s.id)
  if (entry !== undefined) {
    return (
      <section>
        <p role="status">{n.waiting(entry.position)}</p>
        <Fault problem={leaving.problem.value} zone={z} />
        <Button busy={leaving.busy.value} onClick={() => void leaving.run(() => leaveWaitlist(entry.id))}>
          {n.leaveLine}
        </Button>
      </section>
    )
  }
  // The window must reach beyond the reservation that takes the seat, or the entry could end before it.
  const start = from ?? startOf()
  const next = Date.parse(s.nextAvailableAt ?? '')
  const most = start + rulesOf(s.branch, s.area).most
  const end =
    from !== undefined || Number.isNaN(next) || next < start + length - 15 * 60_000
      ? start + length
      : next + length
  const to = Math.min(Math.ceil(end / 900_000) * 900_000, most)
  return (
    <section>
      {account.value === null ? (
        <Button onClick={() => go(signInPath())}>{n.signInToWait}</Button>
      ) : (
        <Button onClick={careful(() => void book(requestOf(s, from, to, 'wait')))}>{n.wait}</Button>
      )}
      <p>
        <small>
          {n.waitHint(
            dayAndClock(start, z),
            dateOf(to, z) === dateOf(start, z) ? clock(to, z) : dayAndClock(to, z),
          )}
        </small>
      </p>
    </section>
  )
}
