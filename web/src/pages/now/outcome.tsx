import type { JSX } from 'preact'
import { api, call } from '../../api/client.ts'
import { t } from '../../i18n/text.ts'
import { clock, dayAndClock } from '../../i18n/time.ts'
import { Link, setQuery, signInPath } from '../../router.tsx'
import { now } from '../../state/clock.ts'
import { cancel, mine, putReservation, reservationAt, type Reservation } from '../../state/mine.ts'
import { Button, useAction } from '../../ui/action.tsx'
import { notify } from '../../ui/notice.tsx'
import { Fault, problemText } from '../../ui/problem.tsx'
import { learn, rulesOf, type Booking } from './booking.ts'
import { branch, chooseLater, zone } from './choice.ts'
import { durationText } from './head.tsx'
import { seat } from '../../state/seats.ts'
import { useEffect } from 'preact/hooks'

type In<State extends Booking['state']> = Extract<Booking, { state: State }>

/** Booked is the success: what the user has, and what to do next. */
export function Booked({ id, onClose }: { id: string; onClose: () => void }): JSX.Element | null {
  const r = mine.value?.reservations.find((other) => other.id === id)
  if (r === undefined) return null
  return <OwnSeat id={id} onClose={onClose} />
}

/** OwnSeat is the user's reservation of a seat, with the next steps. */
export function OwnSeat({ id, onClose }: { id: string; onClose: () => void }): JSX.Element | null {
  const n = t().now
  const z = zone.value
  const action = useAction()
  const r = mine.value?.reservations.find((other) => other.id === id)
  if (r === undefined) return null
  const time = (at: string | undefined): string => dayAndClock(at ?? 0, z)
  const label = r.seat?.label ?? ''
  const opens = Date.parse(r.checkInOpensAt ?? '')
  const canCheckIn = r.status === 'RESERVATION_STATUS_CONFIRMED' && opens <= now.value
  return (
    <div class="own">
      <p class="success" role="status">
        {Date.parse(r.startTime ?? '') <= now.value + 60_000
          ? n.booked(label, time(r.endTime))
          : n.bookedSpan(label, time(r.startTime), clock(r.endTime ?? 0, z))}
      </p>
      {r.status === 'RESERVATION_STATUS_CHECKED_IN' && <p>{n.checkedIn}</p>}
      {r.status === 'RESERVATION_STATUS_CONFIRMED' && (
        <>
          <h3>{n.next}</h3>
          <p>
            {opens <= now.value
              ? n.checkInUntil(time(r.checkInDeadline))
              : n.checkInBetween(time(r.checkInOpensAt), time(r.checkInDeadline))}{' '}
            {n.how[r.checkIn]}
          </p>
        </>
      )}
      <Fault problem={action.problem.value} zone={z} />
      <div class="actions">
        {canCheckIn && r.checkIn === 'CHECK_IN_RULE_NONE' && (
          <Button kind="main" busy={action.busy.value} onClick={() => void action.run(() => checkIn(r))}>
            {n.checkIn}
          </Button>
        )}
        {canCheckIn && /SEAT|SCREEN/.test(r.checkIn) && (
          <Link class="button main" href="/scan">
            {n.scan}
          </Link>
        )}
        {r.status === 'RESERVATION_STATUS_CONFIRMED' && (
          <Button
            busy={action.busy.value}
            onClick={() =>
              void action.run(async () => {
                await cancel(r.id)
                notify(n.cancelled(label))
                onClose()
              })
            }
          >
            {n.cancelIt}
          </Button>
        )}
        <Link class="button" href="/me">
          {n.toMine}
        </Link>
        <Button onClick={onClose}>{n.done}</Button>
      </div>
    </div>
  )
}

async function checkIn(r: Reservation): Promise<void> {
  const path = { reservationId: r.id }
  const answer = await call(
    api.POST('/v1/reservations/{reservationId}:checkIn', { params: { path }, body: {} }),
  )
  if (answer.reservation !== undefined) putReservation(answer.reservation)
}

/** Failed tells why a request failed, and what the user can do about it. */
export function Failed({ failed }: { failed: In<'failed'> }): JSX.Element {
  const n = t().now
  const z = zone.value
  const { problem, request } = failed
  const s = seat(request.seat)?.peek()
  useEffect(() => {
    if (problem.reason === 'WINDOW_NOT_ALLOWED' && s !== undefined) learn(s.branch, s.area, problem.metadata)
  }, [problem])
  const rules = rulesOf(s?.branch ?? branch.value?.code ?? '', s?.area ?? '')
  const other =
    problem.reason === 'USER_BUSY' ? reservationAt('', request.from ?? Date.now(), request.to) : undefined
  return (
    <div class="fault" role="alert">
      <p>{problemText(problem, z)}</p>
      {problem.reason === 'WINDOW_NOT_ALLOWED' && (
        <p>{n.lengthRule(durationText(rules.least / 60_000), durationText(rules.most / 60_000))}</p>
      )}
      {other !== undefined && (
        <p>
          {n.yourOther(
            other.seat?.label ?? '',
            dayAndClock(other.startTime ?? 0, z),
            clock(other.endTime ?? 0, z),
          )}
        </p>
      )}
      <p class="row">
        {['USER_BUSY', 'TOO_MANY_RESERVATIONS', 'QUOTA_EXHAUSTED', 'SUSPENDED', 'ALREADY_WAITING'].includes(
          problem.reason,
        ) && (
          <Link class="button" href="/me">
            {n.toMine}
          </Link>
        )}
        {['BRANCH_CLOSED', 'SEAT_CLOSED', 'WINDOW_NOT_ALLOWED'].includes(problem.reason) && (
          <Button
            onClick={() => {
              setQuery({ seat: '' }, true)
              chooseLater()
            }}
          >
            {n.changeTime}
          </Button>
        )}
        {problem.signedOut && (
          <Link class="button" href={signInPath()}>
            {t().common.signIn}
          </Link>
        )}
        {['SUSPENDED', 'BOOKING_NOT_ALLOWED', 'QUOTA_EXHAUSTED'].includes(problem.reason) && (
          <small>{n.ask}</small>
        )}
      </p>
    </div>
  )
}
