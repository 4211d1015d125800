import { useSignal } from '@preact/signals'
import { useEffect, useRef } from 'preact/hooks'
import type { JSX } from 'preact'
import { api, call, type Schema } from '../../api/client.ts'
import { asProblem, type Problem } from '../../api/problem.ts'
import { t, ts } from '../../i18n/text.ts'
import { addDays, dateOf, day, dayAndClock, instant } from '../../i18n/time.ts'
import { here, Link } from '../../router.tsx'
import { zoneOf } from '../../state/branches.ts'
import { minute, serverNow } from '../../state/clock.ts'
import { account, isAdmin, isLibrarian } from '../../state/session.ts'
import { Button } from '../../ui/action.tsx'
import { notify } from '../../ui/notice.tsx'
import { Act, DeskFault, seatLabel, spanOf } from './act.tsx'
import { BookFor } from './book.tsx'
import { SuspendFields } from './forgive.tsx'
import { branch, nameOf, useChanges } from './scope.ts'
import { PersonTags } from './search.tsx'
import { StatusTag } from './today.tsx'

type Overview = Schema<'GetUserOverviewResponse'>
type Reservation = Schema<'Reservation'>
type Strike = Schema<'Strike'>

/** Open is the dialog that is open. */
type Open =
  | { kind: 'book' | 'suspend' | 'lift' }
  | { kind: 'close'; reservations: number; entries: number }
  | { kind: 'checkIn' | 'checkOut' | 'cancel'; reservation: Reservation }
  | { kind: 'forgive'; strike: Strike }

const openStates = ['RESERVATION_STATUS_HELD', 'RESERVATION_STATUS_CONFIRMED', 'RESERVATION_STATUS_CHECKED_IN']

/** PersonPage shows a person and acts for them. */
export function PersonPage({ id }: { id: string }): JSX.Element {
  const text = ts().desk
  const overview = useSignal<Overview | undefined>(undefined)
  const problem = useSignal<Problem | undefined>(undefined)
  const open = useSignal<Open | undefined>(undefined)
  const latest = useRef(0)
  async function load(): Promise<void> {
    const mine = ++latest.current
    try {
      const answer = await call(api.GET('/v1/desk/users/{userId}', { params: { path: { userId: id } } }))
      if (mine !== latest.current) return
      overview.value = answer
      problem.value = undefined
    } catch (e) {
      if (mine === latest.current) problem.value = asProblem(e)
    }
  }
  useEffect(() => {
    void load()
  }, [])
  const person = overview.value?.user
  const reservations = overview.value?.reservations ?? []
  const now = minute.value
  const current = reservations
    .filter((r) => openStates.includes(r.status) && Date.parse(r.endTime ?? '') > now)
    .sort((a, b) => Date.parse(a.startTime ?? '') - Date.parse(b.startTime ?? ''))
  useChanges(current[0]?.seat?.branch ?? branch.value?.code, () => void load(), new Set(current.map((r) => r.seat?.id ?? '')))
  const past = reservations.filter((r) => !current.includes(r))
  const back = here.value.query.get('branch')
  const closed = person?.closedAt !== undefined
  const show = (o: Open) => (): void => {
    open.value = o
  }
  return (
    <>
      <p>
        <Link href={back === null ? '/desk' : `/desk?branch=${encodeURIComponent(back)}`}>← {text.today}</Link>
      </p>
      {person === undefined && <h1>{text.person}</h1>}
      <DeskFault problem={problem.value} />
      {person === undefined && problem.value === undefined && <p class="loading" role="status">{t().common.loading}</p>}
      {person !== undefined && (
        <>
          <PersonHead person={person} />
          <div class="row desk-acts">
            {!closed && <Button kind="main" onClick={show({ kind: 'book' })}>{text.book}</Button>}
          </div>
          <section class="card">
            <h2>{text.reservations}</h2>
            {current.length === 0 && <p>{text.noReservations}</p>}
            <ul class="plain-list">
              {current.map((r) => (
                <li key={r.id} class="desk-item">
                  <ReservationText reservation={r} now={now} />
                  <span class="row">
                    {r.status === 'RESERVATION_STATUS_CONFIRMED' &&
                      (now >= Date.parse(r.checkInOpensAt ?? '') ? (
                        <Button kind="main" onClick={show({ kind: 'checkIn', reservation: r })}>{text.checkIn}</Button>
                      ) : (
                        <small>{text.checkInFrom(dayAndClock(r.checkInOpensAt ?? '', zoneOf(r.seat?.branch)))}</small>
                      ))}
                    {r.status === 'RESERVATION_STATUS_CHECKED_IN' ? (
                      <Button onClick={show({ kind: 'checkOut', reservation: r })}>{text.checkOut}</Button>
                    ) : (
                      <Button kind="danger" onClick={show({ kind: 'cancel', reservation: r })}>
                        {r.status === 'RESERVATION_STATUS_HELD' ? text.declineOffer : text.cancelReservation}
                      </Button>
                    )}
                  </span>
                </li>
              ))}
            </ul>
            {past.length > 0 && (
              <details>
                <summary>{text.past(past.length)}</summary>
                <ul class="plain-list">
                  {past.map((r) => <li key={r.id} class="desk-item"><ReservationText reservation={r} now={now} /></li>)}
                </ul>
              </details>
            )}
          </section>
          <Waitlist entries={overview.value?.entries ?? []} />
          <Strikes strikes={overview.value?.strikes ?? []} onForgive={(strike) => show({ kind: 'forgive', strike })()} />
          {!closed && <More person={person} onOpen={(o) => show(o)()} />}
          <Dialogs
            person={person}
            open={open.value}
            onDone={() => void load()}
            onClose={() => {
              open.value = undefined
            }}
          />
        </>
      )}
    </>
  )
}

function PersonHead({ person }: { person: Schema<'Person'> }): JSX.Element {
  const text = ts().desk
  const facts: [string, string][] = [
    [text.studentId, person.studentId],
    [text.card, person.card],
    [text.email, person.email],
    [text.group, person.group],
    [text.role, person.role === 'ROLE_STUDENT' ? '' : t().common.role[person.role]],
  ]
  return (
    <>
      <h1>
        <bdi>{person.name}</bdi> <PersonTags person={person} />
      </h1>
      <dl class="desk-facts">
        {facts.filter(([, value]) => value !== '').map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd><bdi>{value}</bdi></dd>
          </div>
        ))}
      </dl>
      {person.closedAt !== undefined && <p class="banner">{text.closedOn(day(person.closedAt, zoneOf(branch.value?.code)))}</p>}
    </>
  )
}

function ReservationText({ reservation: r, now }: { reservation: Reservation; now: number }): JSX.Element {
  const text = ts().desk
  const zone = zoneOf(r.seat?.branch)
  const proof = text.proof[r.proof]
  return (
    <span class="desk-what">
      <b>{seatLabel(r)}</b> {spanOf(r)} <small>{nameOf(r.seat?.branch)}, {r.seat?.area}</small>{' '}
      <StatusTag reservation={r} zone={zone} now={now} /> {proof !== '' && <small>{proof}{r.screen !== '' && `: ${r.screen}`}</small>}
    </span>
  )
}

function Waitlist({ entries }: { entries: readonly Schema<'WaitlistEntry'>[] }): JSX.Element | null {
  const text = ts().desk
  if (entries.length === 0) return null
  return (
    <section class="card">
      <h2>{text.waitlist}</h2>
      <ul class="plain-list">
        {entries.map((e) => (
          <li key={e.id} class="desk-item">
            <span class="desk-what">
              <b>{e.seat?.label}</b> {spanOf(e)} <small>{nameOf(e.seat?.branch)}</small>{' '}
              <span class="tag">
                {e.offerExpiresAt === undefined ? text.waiting : text.offered(dayAndClock(e.offerExpiresAt, zoneOf(e.seat?.branch)))}
              </span>
            </span>
          </li>
        ))}
      </ul>
    </section>
  )
}

function Strikes({ strikes, onForgive }: { strikes: readonly Strike[]; onForgive: (s: Strike) => void }): JSX.Element {
  const text = ts().desk
  const state = (s: Strike): string => {
    const zone = zoneOf(s.branch)
    if (s.forgivenAt !== undefined) return text.forgiven(day(s.forgivenAt, zone)) + (s.reason === '' ? '' : `: ${s.reason}`)
    return s.counts ? `${text.counts}, ${text.expires(day(s.expiresAt ?? '', zone))}` : text.expired
  }
  return (
    <section class="card">
      <h2>{text.strikes}</h2>
      {strikes.length === 0 && <p>{text.noStrikes}</p>}
      <ul class="plain-list">
        {strikes.map((s) => (
          <li key={s.id} class="desk-item">
            <span class="desk-what">
              {strikeTitle(s)} <span class={s.counts ? 'tag warn' : 'tag'}>{state(s)}</span>
            </span>
            {isLibrarian.value && s.forgivenAt === undefined && <Button onClick={() => onForgive(s)}>{text.forgive}</Button>}
          </li>
        ))}
      </ul>
    </section>
  )
}

function strikeTitle(s: Strike): string {
  return ts().desk.strikeAt(dayAndClock(s.at ?? '', zoneOf(s.branch)), nameOf(s.branch))
}

/** More has the changes of librarians and admins. */
function More({ person, onOpen }: { person: Schema<'Person'>; onOpen: (o: Open) => void }): JSX.Element | null {
  const text = ts().desk
  const problem = useSignal<Problem | undefined>(undefined)
  if (!isLibrarian.value) return null
  const suspended = person.suspendedUntil !== undefined
  // The number of reservations that would end is a part of the question.
  const askToClose = async (): Promise<void> => {
    try {
      const params = { path: { userId: person.id } }
      const body = { reason: text.preview, validateOnly: true }
      const { reservations, entries } = await call(api.POST('/v1/desk/users/{userId}:close', { params, body }))
      onOpen({ kind: 'close', reservations, entries })
    } catch (e) {
      problem.value = asProblem(e)
    }
  }
  return (
    <section class="card">
      <h2>{text.more}</h2>
      <div class="row">
        <Button onClick={() => onOpen({ kind: 'suspend' })}>{suspended ? text.changeSuspension : text.suspend}</Button>
        {suspended && <Button onClick={() => onOpen({ kind: 'lift' })}>{text.lift}</Button>}
        {isAdmin.value && person.id !== account.value?.user.id && (
          <Button kind="danger" onClick={() => void askToClose()}>{text.close}</Button>
        )}
      </div>
      <DeskFault problem={problem.value} />
    </section>
  )
}

interface DialogsProps {
  person: Schema<'Person'>
  open: Open | undefined
  onDone: () => void
  onClose: () => void
}

/** Dialogs shows the dialog that is open. */
function Dialogs({ person, open, onDone, onClose }: DialogsProps): JSX.Element | null {
  const text = ts().desk
  const zone = zoneOf(branch.value?.code)
  const today = dateOf(serverNow(), zone)
  const lastDay = useSignal(addDays(today, 7))
  if (open === undefined) return null
  const user = { path: { userId: person.id } }
  const done = (message: string): void => {
    notify(message)
    onDone()
  }
  switch (open.kind) {
    case 'book':
      return <BookFor person={person} onClose={onClose} onBooked={onDone} />
    case 'checkIn':
    case 'checkOut':
    case 'cancel': {
      const r = open.reservation
      const at = { params: { path: { reservationId: r.id } } }
      const held = r.status === 'RESERVATION_STATUS_HELD'
      const common = { zone: zoneOf(r.seat?.branch), seen: true, reason: text.reasons[open.kind], onClose }
      if (open.kind === 'checkIn') {
        return (
          <Act
            {...common}
            title={text.checkInPerson(person.name, seatLabel(r))}
            confirm={text.checkIn}
            run={async (reason) => {
              await call(api.POST('/v1/desk/reservations/{reservationId}:checkIn', { ...at, body: { reason } }))
              done(text.checkedIn(person.name, seatLabel(r)))
            }}
          />
        )
      }
      if (open.kind === 'checkOut') {
        return (
          <Act
            {...common}
            title={text.checkOutPerson(person.name, seatLabel(r))}
            text={text.checkOutText(seatLabel(r))}
            confirm={text.checkOut}
            run={async (reason) => {
              await call(api.POST('/v1/desk/reservations/{reservationId}:checkOut', { ...at, body: { reason } }))
              done(text.checkedOut(person.name, seatLabel(r)))
            }}
          />
        )
      }
      return (
        <Act
          {...common}
          title={held ? text.declineOffer : text.cancelReservation}
          text={held ? text.declineText(seatLabel(r), spanOf(r)) : text.cancelText(seatLabel(r), spanOf(r))}
          confirm={held ? text.declineOffer : text.cancelReservation}
          danger
          run={async (reason) => {
            await call(api.POST('/v1/desk/reservations/{reservationId}:cancel', { ...at, body: { reason } }))
            done(held ? text.declined : text.cancelled)
          }}
        />
      )
    }
    case 'forgive':
      return (
        <Act
          title={text.forgiveOne(dayAndClock(open.strike.at ?? '', zoneOf(open.strike.branch)))}
          text={text.forgiveOneText}
          confirm={text.forgive}
          onClose={onClose}
          run={async (reason) => {
            await call(api.POST('/v1/desk/strikes:forgive', { body: { strikeId: open.strike.id, reason } }))
            done(text.forgaveOne)
          }}
        />
      )
    case 'suspend':
      return (
        <Act
          title={text.suspendTitle(person.name)}
          text={text.suspendText}
          confirm={text.suspend}
          danger
          zone={zone}
          onClose={onClose}
          run={async (reason) => {
            const until = instant(addDays(lastDay.value, 1), '00:00', zone).toISOString()
            await call(api.POST('/v1/desk/users/{userId}:suspend', { params: user, body: { until, reason } }))
            done(text.suspended(dayAndClock(until, zone)))
          }}
        >
          <SuspendFields day={lastDay} first={today} />
        </Act>
      )
    case 'lift':
      return (
        <Act
          title={text.lift}
          text={text.liftText}
          confirm={text.lift}
          reason={text.reasons.lift}
          onClose={onClose}
          run={async (reason) => {
            await call(api.POST('/v1/desk/users/{userId}:suspend', { params: user, body: { reason } }))
            done(text.lifted)
          }}
        />
      )
    case 'close':
      return (
        <Act
          title={text.close}
          text={text.closeText(open.reservations, open.entries)}
          confirm={text.close}
          danger
          onClose={onClose}
          run={async (reason) => {
            await call(api.POST('/v1/desk/users/{userId}:close', { params: user, body: { reason } }))
            done(text.closed)
          }}
        />
      )
  }
}
