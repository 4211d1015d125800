import { useSignal } from '@preact/signals'
import { useEffect, useRef } from 'preact/hooks'
import type { JSX } from 'preact'
import { api, call, type Schema } from '../../api/client.ts'
import { asProblem, type Problem } from '../../api/problem.ts'
import { t, ts } from '../../i18n/text.ts'
import { dateOf, day, dayAndClock } from '../../i18n/time.ts'
import { here, Link } from '../../router.tsx'
import { zoneOf } from '../../state/branches.ts'
import { minute } from '../../state/clock.ts'
import { account, isAdmin, isLibrarian } from '../../state/session.ts'
import { Button } from '../../ui/action.tsx'
import { DeskFault, seatLabel, spanOf } from './act.tsx'
import { Dialogs, type Open } from './dialogs.tsx'
import { branch, nameOf, useArrivals } from './scope.ts'
import { PersonTags } from './search.tsx'
import { StatusTag } from './today.tsx'

type Overview = Schema<'GetUserOverviewResponse'>
type Reservation = Schema<'Reservation'>
type Strike = Schema<'Strike'>

const openStates = [
  'RESERVATION_STATUS_HELD',
  'RESERVATION_STATUS_CONFIRMED',
  'RESERVATION_STATUS_CHECKED_IN',
]

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
  const next = current[0]
  const place = next?.seat?.branch ?? branch.value?.code
  useArrivals(
    place,
    dateOf(Date.parse(next?.startTime ?? '') || now, zoneOf(place)),
    () => void load(),
    (changed) => {
      if (changed.some((a) => a.reservation?.userId === id)) void load()
    },
  )
  const past = reservations.filter((r) => !current.includes(r))
  const back = here.value.query.get('branch')
  const closed = person?.closedAt !== undefined
  const show = (o: Open) => (): void => {
    open.value = o
  }
  return (
    <>
      <p>
        <Link href={back === null ? '/desk' : `/desk?branch=${encodeURIComponent(back)}`}>
          ← {text.today}
        </Link>
      </p>
      {person === undefined && <h1>{text.person}</h1>}
      <DeskFault problem={problem.value} />
      {person === undefined && problem.value === undefined && (
        <p class="loading" role="status">
          {t().common.loading}
        </p>
      )}
      {person !== undefined && (
        <>
          <PersonHead person={person} />
          <div class="row desk-acts">
            {!closed && (
              <Button kind="main" onClick={show({ kind: 'book' })}>
                {text.book}
              </Button>
            )}
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
                        <Button kind="main" onClick={show({ kind: 'checkIn', reservation: r })}>
                          {text.checkIn}
                        </Button>
                      ) : (
                        <small>
                          {text.checkInFrom(dayAndClock(r.checkInOpensAt ?? '', zoneOf(r.seat?.branch)))}
                        </small>
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
                  {past.map((r) => (
                    <li key={r.id} class="desk-item">
                      <ReservationText reservation={r} now={now} />
                    </li>
                  ))}
                </ul>
              </details>
            )}
          </section>
          <Waitlist entries={overview.value?.entries ?? []} />
          <Strikes
            strikes={overview.value?.strikes ?? []}
            onForgive={(strike) => show({ kind: 'forgive', strike })()}
          />
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
        {facts
          .filter(([, value]) => value !== '')
          .map(([name, value]) => (
            <div key={name}>
              <dt>{name}</dt>
              <dd>
                <bdi>{value}</bdi>
              </dd>
            </div>
          ))}
      </dl>
      {person.closedAt !== undefined && (
        <p class="banner">{text.closedOn(day(person.closedAt, zoneOf(branch.value?.code)))}</p>
      )}
    </>
  )
}

function ReservationText({ reservation: r, now }: { reservation: Reservation; now: number }): JSX.Element {
  const text = ts().desk
  const zone = zoneOf(r.seat?.branch)
  const proof = text.proof[r.proof]
  return (
    <span class="desk-what">
      <b>{seatLabel(r)}</b> {spanOf(r)}{' '}
      <small>
        {nameOf(r.seat?.branch)}, {r.seat?.area}
      </small>{' '}
      <StatusTag reservation={r} zone={zone} now={now} />{' '}
      {proof !== '' && (
        <small>
          {proof}
          {r.screen !== '' && `: ${r.screen}`}
        </small>
      )}
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
                {e.offerExpiresAt === undefined
                  ? text.waiting
                  : text.offered(dayAndClock(e.offerExpiresAt, zoneOf(e.seat?.branch)))}
              </span>
            </span>
          </li>
        ))}
      </ul>
    </section>
  )
}

function Strikes({
  strikes,
  onForgive,
}: {
  strikes: readonly Strike[]
  onForgive: (s: Strike) => void
}): JSX.Element {
  const text = ts().desk
  const state = (s: Strike): string => {
    const zone = zoneOf(s.branch)
    if (s.forgivenAt !== undefined)
      return text.forgiven(day(s.forgivenAt, zone)) + (s.reason === '' ? '' : `: ${s.reason}`)
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
            {isLibrarian.value && s.forgivenAt === undefined && (
              <Button onClick={() => onForgive(s)}>{text.forgive}</Button>
            )}
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
function More({
  person,
  onOpen,
}: {
  person: Schema<'Person'>
  onOpen: (o: Open) => void
}): JSX.Element | null {
  const text = ts().desk
  const problem = useSignal<Problem | undefined>(undefined)
  if (!isLibrarian.value) return null
  const suspended = person.suspendedUntil !== undefined
  // The number of reservations that would end is a part of the question.
  const askToClose = async (): Promise<void> => {
    try {
      const params = { path: { userId: person.id } }
      const body = { reason: text.preview, validateOnly: true }
      const { reservations, entries } = await call(
        api.POST('/v1/desk/users/{userId}:close', { params, body }),
      )
      onOpen({ kind: 'close', reservations, entries })
    } catch (e) {
      problem.value = asProblem(e)
    }
  }
  return (
    <section class="card">
      <h2>{text.more}</h2>
      <div class="row">
        <Button onClick={() => onOpen({ kind: 'suspend' })}>
          {suspended ? text.changeSuspension : text.suspend}
        </Button>
        {suspended && <Button onClick={() => onOpen({ kind: 'lift' })}>{text.lift}</Button>}
        {isAdmin.value && person.id !== account.value?.user.id && (
          <Button kind="danger" onClick={() => void askToClose()}>
            {text.close}
          </Button>
        )}
      </div>
      <DeskFault problem={problem.value} />
    </section>
  )
}
