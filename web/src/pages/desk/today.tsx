import { useSignal } from '@preact/signals'
import { useEffect, useRef } from 'preact/hooks'
import type { JSX } from 'preact'
import { api, call, type Schema } from '../../api/client.ts'
import { asProblem, type Problem } from '../../api/problem.ts'
import { t, ts } from '../../i18n/text.ts'
import { clock, dateOf } from '../../i18n/time.ts'
import { here, Link, setQuery } from '../../router.tsx'
import { minute } from '../../state/clock.ts'
import { isLibrarian } from '../../state/session.ts'
import { Button, useAction } from '../../ui/action.tsx'
import { notify } from '../../ui/notice.tsx'
import { DeskFault, endOf, seatLabel } from './act.tsx'
import { ForgiveSpan } from './forgive.tsx'
import { branch, chooseBranch, scope, useArrivals, type Arrival } from './scope.ts'
import { personPath } from './search.tsx'

type Filter = 'current' | 'late' | 'here' | 'all'

const step = 100 // rows that are drawn at first

/** Today lists the reservations of a branch on one day, and checks their users in and out. */
export function Today(): JSX.Element {
  const text = ts().desk
  const list = useSignal<readonly Arrival[] | undefined>(undefined)
  const problem = useSignal<Problem | undefined>(undefined)
  const filter = useSignal<Filter>('current')
  const touched = useSignal<ReadonlySet<string>>(new Set())
  const rows = useSignal(step)
  const forgiving = useSignal(false)
  const latest = useRef(0)
  /** The changes since the list was asked for, whose answer may be older. */
  const changes = useRef<Arrival[]>([])
  const current = branch.value
  const code = current?.code
  const zone = current?.timezone ?? 'UTC'
  const now = minute.value
  const today = dateOf(now, zone)
  const day = here.value.query.get('day') ?? today

  async function load(): Promise<void> {
    if (code === undefined) return
    const mine = ++latest.current
    changes.current = []
    try {
      const all = await readDay(code, day)
      if (mine !== latest.current) return
      list.value = merge(all, changes.current)
      problem.value = undefined
    } catch (e) {
      if (mine !== latest.current) return
      problem.value = asProblem(e)
      if (!problem.value.temporary) list.value = undefined
    }
  }
  useEffect(() => {
    list.value = undefined
    touched.value = new Set()
    rows.value = step
    void load()
  }, [code, day])
  useArrivals(
    code,
    day,
    () => void load(),
    (changed) => {
      changes.current.push(...changed)
      if (list.value !== undefined) list.value = merge(list.value, changed)
    },
  )

  const chosen = scope.value.some((b) => b.code === code)
  const groups = groupsOf(list.value ?? [], now)
  const shown = (list.value ?? []).filter(
    (a) => groups[filter.value].has(idOf(a)) || touched.value.has(idOf(a)),
  )
  const choose = (f: Filter): void => {
    filter.value = f
    touched.value = new Set()
    rows.value = step
  }
  const replace = (r: Schema<'Reservation'>): void => {
    touched.value = new Set([...touched.value, r.id])
    list.value = list.value?.map((a) => (idOf(a) === r.id ? { ...a, reservation: r } : a))
  }
  return (
    <>
      <h1>{text.today}</h1>
      <div class="desk-bar">
        {(scope.value.length > 1 || !chosen) && (
          <label class="field">
            {text.branch}
            <select value={code ?? ''} onChange={(e) => chooseBranch(e.currentTarget.value)}>
              {!chosen && <option value={code ?? ''}>{current?.name}</option>}
              {scope.value.map((b) => (
                <option key={b.code} value={b.code}>
                  {b.name}
                </option>
              ))}
            </select>
          </label>
        )}
        <label class="field">
          {text.day}
          <input
            type="date"
            value={day}
            onChange={(e) => setQuery({ day: e.currentTarget.value === today ? '' : e.currentTarget.value })}
          />
        </label>
        {day !== today && <Button onClick={() => setQuery({ day: '' })}>{text.toToday}</Button>}
        <Button onClick={() => void load()}>{text.reload}</Button>
        {isLibrarian.value && (
          <Button
            onClick={() => {
              forgiving.value = true
            }}
          >
            {text.forgiveSpan}
          </Button>
        )}
      </div>
      {problem.value?.reason === 'BRANCH_REQUIRED' ? (
        <p class="fault" role="alert">
          {text.otherBranch(current?.name ?? '')}
        </p>
      ) : (
        <DeskFault problem={problem.value} zone={zone} />
      )}
      {list.value === undefined && problem.value === undefined && (
        <p class="loading" role="status">
          {t().common.loading}
        </p>
      )}
      {list.value !== undefined && (
        <>
          <div class="chips" role="group" aria-label={text.show}>
            {(['current', 'late', 'here', 'all'] as const).map((f) => (
              <button
                key={f}
                type="button"
                class="chip"
                aria-pressed={filter.value === f}
                onClick={() => choose(f)}
              >
                {text[f](groups[f].size)}
              </button>
            ))}
          </div>
          {shown.length === 0 ? (
            <p class="desk-none">{text.noArrivals}</p>
          ) : (
            <ul class="plain-list arrivals">
              {shown.slice(0, rows.value).map((a) => (
                <Row key={idOf(a)} arrival={a} zone={zone} now={now} onChange={replace} />
              ))}
            </ul>
          )}
          {shown.length > rows.value && (
            <Button
              onClick={() => {
                rows.value += step
              }}
            >
              {text.moreRows(Math.min(step, shown.length - rows.value))}
            </Button>
          )}
        </>
      )}
      {forgiving.value && current !== undefined && (
        <ForgiveSpan
          branch={current}
          onClose={() => {
            forgiving.value = false
          }}
        />
      )}
    </>
  )
}

async function readDay(code: string, day: string): Promise<Arrival[]> {
  const all: Arrival[] = []
  for (let pageToken = ''; ;) {
    const query = { branch: code, day, pageSize: 500, pageToken }
    const page = await call(api.GET('/v1/desk/arrivals', { params: { query } }))
    all.push(...page.reservations)
    if (page.nextPageToken === '') return all
    pageToken = page.nextPageToken
  }
}

function idOf(a: Arrival): string {
  return a.reservation?.id ?? ''
}

/** merge returns the list with newer reservations, which replace those with their ids. */
function merge(list: readonly Arrival[], newer: readonly Arrival[]): Arrival[] {
  const all = new Map(list.map((a) => [idOf(a), a]))
  for (const a of newer) {
    if (a.reservation?.status === 'RESERVATION_STATUS_CANCELLED') all.delete(idOf(a))
    else all.set(idOf(a), a)
  }
  const start = (a: Arrival): number => Date.parse(a.reservation?.startTime ?? '')
  return [...all.values()].sort((a, b) => start(a) - start(b) || Number(idOf(a)) - Number(idOf(b)))
}

function isLate(r: Schema<'Reservation'>, now: number): boolean {
  return r.status === 'RESERVATION_STATUS_CONFIRMED' && Date.parse(r.startTime ?? '') <= now
}

function groupsOf(list: readonly Arrival[], now: number): Record<Filter, ReadonlySet<string>> {
  const ids = (f: (r: Schema<'Reservation'>) => boolean): ReadonlySet<string> =>
    new Set(list.filter((a) => a.reservation !== undefined && f(a.reservation)).map(idOf))
  return {
    current: ids(
      (r) => r.status === 'RESERVATION_STATUS_CONFIRMED' || r.status === 'RESERVATION_STATUS_CHECKED_IN',
    ),
    late: ids((r) => isLate(r, now)),
    here: ids((r) => r.status === 'RESERVATION_STATUS_CHECKED_IN'),
    all: ids(() => true),
  }
}

interface RowProps {
  arrival: Arrival
  zone: string
  now: number
  onChange: (r: Schema<'Reservation'>) => void
}

/**
 * Row is one reservation. The buttons for check-in and check-out have places of their own: a second
 * tap on "Check in" does not check the person out again.
 */
function Row({ arrival, zone, now, onChange }: RowProps): JSX.Element | null {
  const text = ts().desk
  const action = useAction()
  const r = arrival.reservation
  if (r === undefined) return null
  const act = (verb: 'checkIn' | 'checkOut'): void => {
    void action.run(async () => {
      const options = { params: { path: { reservationId: r.id } }, body: { reason: text.reasons[verb] } }
      const { reservation } =
        verb === 'checkIn'
          ? await call(api.POST('/v1/desk/reservations/{reservationId}:checkIn', options))
          : await call(api.POST('/v1/desk/reservations/{reservationId}:checkOut', options))
      if (reservation !== undefined) onChange(reservation)
      notify(
        verb === 'checkIn'
          ? text.checkedIn(arrival.name, seatLabel(r))
          : text.checkedOut(arrival.name, seatLabel(r)),
      )
    })
  }
  const confirmed = r.status === 'RESERVATION_STATUS_CONFIRMED'
  const here = r.status === 'RESERVATION_STATUS_CHECKED_IN'
  const opens = Date.parse(r.checkInOpensAt ?? '')
  return (
    <li class="arrival">
      <span class="arrival-time">
        {clock(r.startTime ?? '', zone)} – {endOf(r.startTime ?? '', r.endTime ?? '', zone)}
      </span>
      <span class="arrival-person">
        <Link href={personPath(r.userId)}>
          <bdi>{arrival.name}</bdi>
        </Link>{' '}
        <small>{arrival.studentId}</small>
      </span>
      <span class="arrival-seat">
        <b>{seatLabel(r)}</b> <small>{r.seat?.area}</small>
      </span>
      <StatusTag reservation={r} zone={zone} now={now} />
      <span class="arrival-in">
        {confirmed && now >= opens && (
          <Button
            kind="main"
            busy={action.busy.value}
            label={text.checkInPerson(arrival.name, seatLabel(r))}
            onClick={() => act('checkIn')}
          >
            {text.checkIn}
          </Button>
        )}
        {confirmed && now < opens && <small>{text.checkInFrom(clock(opens, zone))}</small>}
      </span>
      <span class="arrival-out">
        {here && (
          <Button
            busy={action.busy.value}
            label={text.checkOutPerson(arrival.name, seatLabel(r))}
            onClick={() => act('checkOut')}
          >
            {text.checkOut}
          </Button>
        )}
      </span>
      {action.problem.value !== undefined && (
        <div class="arrival-fault">
          <DeskFault problem={action.problem.value} zone={zone} />
        </div>
      )}
    </li>
  )
}

interface StatusProps {
  reservation: Schema<'Reservation'>
  zone: string
  now: number
}

/** StatusTag tells in words whether a person is expected, late, checked in, has left, or did not come. */
export function StatusTag({ reservation: r, zone, now }: StatusProps): JSX.Element {
  const text = ts().desk
  switch (r.status) {
    case 'RESERVATION_STATUS_CONFIRMED':
      if (!isLate(r, now)) return <span class="tag">{text.expected}</span>
      return (
        <span class="tag warn">
          {r.checkInDeadline === undefined ? text.isLate : text.lateUntil(clock(r.checkInDeadline, zone))}
        </span>
      )
    case 'RESERVATION_STATUS_CHECKED_IN':
      return (
        <span class="tag free">
          {r.checkedInAt === undefined
            ? t().common.status[r.status]
            : text.checkedInAt(clock(r.checkedInAt, zone))}
        </span>
      )
    case 'RESERVATION_STATUS_COMPLETED':
      return (
        <span class="tag">
          {r.endedAt === undefined ? t().common.status[r.status] : text.completed(clock(r.endedAt, zone))}
        </span>
      )
    case 'RESERVATION_STATUS_NO_SHOW':
      return <span class="tag taken">{text.noShow}</span>
  }
  return <span class="tag">{t().common.status[r.status]}</span>
}
