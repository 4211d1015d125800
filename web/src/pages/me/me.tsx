import { useSignal } from '@preact/signals'
import { useEffect } from 'preact/hooks'
import type { JSX } from 'preact'
import { t } from '../../i18n/text.ts'
import { clock, dayAndClock } from '../../i18n/time.ts'
import { Link } from '../../router.tsx'
import { zoneOf } from '../../state/branches.ts'
import { now } from '../../state/clock.ts'
import {
  entries,
  loadMine,
  mine,
  mineFresh,
  mineProblem,
  onNotification,
  present,
  reservations,
  type Reservation,
} from '../../state/mine.ts'
import { account } from '../../state/session.ts'
import { Button } from '../../ui/action.tsx'
import { Fault } from '../../ui/problem.tsx'
import { useBranches } from './branches.ts'
import { CheckIn } from './check-in.tsx'
import { useKeptFocus } from './focus.ts'
import { History } from './history.tsx'
import { ConfirmCancel, Place, Present } from './present.tsx'
import { loadStanding, standing, Strikes, Suspension } from './standing.tsx'
import { ms, span } from './times.ts'
import { Offer, Waiting } from './waitlist.tsx'

/** View is the page of the user's own seats. Without a network it shows those of last time. */
export function View(): JSX.Element {
  const user = account.value
  const zonesKnown = useBranches()
  useKeptFocus()
  useEffect(() => {
    standing.value = undefined
    if (!user) return
    const read = (): void => void loadStanding().catch(() => undefined)
    read()
    let later: ReturnType<typeof setTimeout> | undefined
    const end = onNotification((n) => {
      if (n.kind !== 'NOTIFICATION_KIND_NO_SHOW') return
      read()
      // The server decides on a suspension a moment after the no-show, and sends no notification of it.
      clearTimeout(later)
      later = setTimeout(read, 5000)
    })
    return () => {
      end()
      clearTimeout(later)
    }
  }, [user?.user.id])
  return (
    <div class="my-seats">
      <h1>{t().me.title}</h1>
      {(!zonesKnown || (user === undefined && mine.value === undefined)) && (
        <p class="loading" role="status">
          {t().common.loading}
        </p>
      )}
      {user === null && mine.value === undefined && <SignedOut />}
      {zonesKnown && mine.value !== undefined && <Seats />}
      {zonesKnown && user && mine.value === undefined && <Loading />}
      {zonesKnown && user && <Strikes />}
      {zonesKnown && user && <History />}
    </div>
  )
}

function SignedOut(): JSX.Element {
  return (
    <section class="card">
      <p>{t().me.signIn}</p>
      <div class="row">
        <Link href="/login?next=/me" class="button main">
          {t().common.signIn}
        </Link>
        <Link href="/register?next=/me" class="button">
          {t().common.register}
        </Link>
      </div>
    </section>
  )
}

function Loading(): JSX.Element {
  if (mineProblem.value === undefined)
    return (
      <p class="loading" role="status">
        {t().common.loading}
      </p>
    )
  return (
    <>
      <Fault problem={mineProblem.value} />
      <Button onClick={() => void loadMine()}>{t().common.retry}</Button>
    </>
  )
}

function Seats(): JSX.Element {
  const m = t().me
  const current = present.value
  const later = reservations.value.filter((r) => r.id !== current?.id)
  // An offer that has expired stays for a minute, and says so.
  const open = entries.value.filter((e) => e.status === 'WAITLIST_STATUS_OFFERED')
  const offered = open.filter((e) => ms(e.offerExpiresAt) > now.value - 60_000)
  const waiting = entries.value.filter((e) => e.status === 'WAITLIST_STATUS_WAITING')
  const nothing = current === undefined && later.length === 0 && offered.length === 0
  return (
    <>
      <AsOf />
      <Suspension />
      {offered.map((e) => (
        <Offer key={e.id} entry={e} />
      ))}
      {current !== undefined && <Present key={current.id} reservation={current} />}
      {nothing && (
        <section class="card empty">
          <p>{m.empty}</p>
          <div class="row">
            <Link href="/" class="button main">
              {m.find}
            </Link>
            <Link href="/scan" class="button">
              {m.sitDown}
            </Link>
          </div>
        </section>
      )}
      {later.length > 0 && (
        <section aria-labelledby="coming">
          <h2 id="coming">{m.coming}</h2>
          <ul class="plain-list">
            {later.map((r) => (
              <Coming key={r.id} reservation={r} />
            ))}
          </ul>
        </section>
      )}
      {waiting.length > 0 && (
        <section aria-labelledby="waitlist">
          <h2 id="waitlist">{m.waitlist}</h2>
          <ul class="plain-list">
            {waiting.map((e) => (
              <Waiting key={e.id} entry={e} />
            ))}
          </ul>
        </section>
      )}
    </>
  )
}

/** AsOf tells how old the shown state is, if it is not of now. */
function AsOf(): JSX.Element | null {
  const m = mine.value
  if (m === undefined || (mineFresh.value && mineProblem.value === undefined)) return null
  const zone = zoneOf(m.reservations[0]?.seat?.branch)
  const failed = mineProblem.value !== undefined || account.value === null
  if (!failed)
    return (
      <p class="loading" role="status">
        {t().common.loading}
      </p>
    )
  return (
    <p class="as-of" role="status">
      {t().me.asOf(dayAndClock(m.asOf, zone))}{' '}
      {account.value === null && navigator.onLine && <Link href="/login?next=/me">{t().common.signIn}</Link>}
    </p>
  )
}

function Coming({ reservation: r }: { reservation: Reservation }): JSX.Element {
  const confirm = useSignal(false)
  const zone = zoneOf(r.seat?.branch)
  const m = t().me
  const opens = ms(r.checkInOpensAt)
  return (
    <li class="card seat-item">
      <div>
        <h3>{m.seat(r.seat?.label ?? '')}</h3>
        <p>{span(r.startTime, r.endTime, zone)}</p>
        <p>
          <small>
            <Place seat={r.seat} />
          </small>
        </p>
        {now.value < opens - 3_600_000 ? (
          <p>
            <small>{m.checkInFromTo(clock(opens, zone), clock(ms(r.checkInDeadline), zone))}</small>
          </p>
        ) : (
          <CheckIn reservation={r} />
        )}
      </div>
      {account.value && (
        <Button
          kind="danger"
          label={`${m.cancel}: ${m.seat(r.seat?.label ?? '')}, ${span(r.startTime, r.endTime, zone)}`}
          onClick={() => {
            confirm.value = true
          }}
        >
          {m.cancel}
        </Button>
      )}
      {confirm.value && (
        <ConfirmCancel
          reservation={r}
          onClose={() => {
            confirm.value = false
          }}
        />
      )}
    </li>
  )
}
