import { useSignal } from '@preact/signals'
import { useEffect, useMemo } from 'preact/hooks'
import type { JSX } from 'preact'
import { api, call, newKey } from '../../api/client.ts'
import { asProblem, type Problem } from '../../api/problem.ts'
import { t } from '../../i18n/text.ts'
import { clock, countdown, dayAndClock } from '../../i18n/time.ts'
import { Link } from '../../router.tsx'
import { branchOf, zoneOf } from '../../state/branches.ts'
import { minute, now } from '../../state/clock.ts'
import { present, putReservation, type Reservation } from '../../state/mine.ts'
import { Button, useAction } from '../../ui/action.tsx'
import { Fault } from '../../ui/problem.tsx'
import { Place } from '../me/present.tsx'
import { ends, ms, shortLength } from '../me/times.ts'
import type { Flow, SeatAnswer } from './flow.ts'

/** SeatHead names the seat of a label. */
export function SeatHead({ answer }: { answer: SeatAnswer }): JSX.Element {
  const seat = answer.seat
  return (
    <>
      <h2>{t().me.seat(seat?.label ?? '')}</h2>
      <p>
        <Place seat={seat} />
      </p>
      {(seat?.amenities.length ?? 0) > 0 && (
        <p class="quiet">{seat?.amenities.map((a) => t().common.amenity[a]).join(', ')}</p>
      )}
    </>
  )
}

/** SeatStep shows what the user can do at the seat of a label. */
export function SeatStep({ flow, answer }: { flow: Flow; answer: SeatAnswer }): JSX.Element {
  const other = present.value
  return (
    <section class="card">
      <SeatHead answer={answer} />
      {other !== undefined && other.seat?.id !== answer.seat?.id && (
        <p class="as-of">
          {t().scan.otherSeat(other.seat?.label ?? '')} <Link href="/me">{t().me.title}</Link>
        </p>
      )}
      {answer.action === 'SEAT_ACTION_SIT_DOWN' && <SitDown flow={flow} answer={answer} />}
      {answer.action === 'SEAT_ACTION_COME_BACK' && <ComeBack flow={flow} answer={answer} />}
      {answer.action === 'SEAT_ACTION_CHOOSE_ANOTHER' && <ChooseAnother answer={answer} />}
    </section>
  )
}

/** Checked is what the server says about an end: the reservation as it would be, or why it is not possible. */
interface Checked {
  end: number
  reservation: Reservation | undefined
  problem: Problem | undefined
}

function SitDown({ flow, answer }: { flow: Flow; answer: SeatAnswer }): JSX.Element {
  const seat = answer.seat
  const zone = zoneOf(seat?.branch)
  const from = Math.max(minute.value, ms(answer.asOf))
  const limit = Math.min(
    ms(seat?.availableUntil) || Infinity,
    ms(branchOf(seat?.branch)?.closesAt) || Infinity,
  )
  const all = ends(from, 240, limit, zone)
  const choice = useSignal(0)
  const end = all.includes(choice.value)
    ? choice.value
    : (all.find((e) => e >= from + 3_600_000) ?? all.at(-1) ?? 0)
  const checked = useSignal<Checked | undefined>(undefined)
  const key = useMemo(newKey, [end])
  const { busy, problem, run } = useAction()
  const s = t().scan

  const request = (validateOnly: boolean) => ({
    params: { header: validateOnly ? {} : { 'Idempotency-Key': key } },
    body: { seatId: seat?.id ?? '', endTime: new Date(end).toISOString(), requestId: '', validateOnly },
  })
  // The rules are known before the tap: an end that is not possible, and the codes that check-in needs.
  useEffect(() => {
    let current = true
    if (end === 0) return
    call(api.POST('/v1/reservations', request(true))).then(
      ({ reservation }) => {
        if (current) checked.value = { end, reservation, problem: undefined }
      },
      (e: unknown) => {
        if (current) checked.value = { end, reservation: undefined, problem: asProblem(e) }
      },
    )
    return () => {
      current = false
    }
  }, [end])

  if (all.length === 0) return <p>{s.tooShort(clock(limit, zone))}</p>
  const known = checked.value?.end === end ? checked.value : undefined
  const rule = known?.reservation?.checkIn
  const needsScreen = rule === 'CHECK_IN_RULE_SCREEN' || rule === 'CHECK_IN_RULE_SEAT_AND_SCREEN'
  const refused = known?.problem !== undefined && !known.problem.temporary ? known.problem : undefined
  return (
    <>
      <p>
        <span class="tag free">{s.free}</span>
      </p>
      <div class="chips ends" role="group" aria-label={s.howLong}>
        {all.map((e) => (
          <button
            key={e}
            class="chip"
            type="button"
            aria-pressed={e === end}
            onClick={() => {
              choice.value = e
            }}
          >
            {t().common.until(clock(e, zone))} <small>{shortLength(e - from)}</small>
          </button>
        ))}
      </div>
      {rule === 'CHECK_IN_RULE_DESK' && <p>{s.thenDesk}</p>}
      {needsScreen && flow.screen.value === undefined && <p>{s.thenScreen}</p>}
      <Fault problem={problem.value ?? refused} zone={zone} />
      <div class="row">
        <Button
          kind="main"
          busy={busy.value}
          disabled={refused !== undefined}
          onClick={() =>
            void run(async () => {
              const { reservation } = await call(api.POST('/v1/reservations', request(false)))
              if (reservation === undefined) return
              putReservation(reservation)
              await flow.booked(reservation)
            })
          }
        >
          {s.sitDown(clock(end, zone))}
        </Button>
        {refused !== undefined && <Free branch={seat?.branch} />}
      </div>
    </>
  )
}

function ComeBack({ flow, answer }: { flow: Flow; answer: SeatAnswer }): JSX.Element {
  const zone = zoneOf(answer.seat?.branch)
  const opens = ms(answer.checkInOpensAt)
  const s = t().scan
  if (now.value >= opens)
    return (
      <Button kind="main" onClick={() => flow.reload()}>
        {t().me.checkIn}
      </Button>
    )
  return (
    <>
      <p>{s.comeBack}</p>
      <p class="deadline">
        {t().me.checkInOpens(dayAndClock(opens, zone))}{' '}
        <span role="timer" class="timer">
          {countdown(opens - now.value)}
        </span>
      </p>
      <Link href="/me" class="button">
        {t().me.title}
      </Link>
    </>
  )
}

function ChooseAnother({ answer }: { answer: SeatAnswer }): JSX.Element {
  const s = t().scan
  const seat = answer.seat
  const next = ms(seat?.nextAvailableAt)
  const zone = zoneOf(seat?.branch)
  return (
    <>
      <p>
        <span class="tag taken">{seat?.outOfService === true ? s.outOfService : s.taken}</span>
      </p>
      {next > 0 && <p>{s.freeAgain(dayAndClock(next, zone))}</p>}
      <div class="row">
        <Free branch={seat?.branch} main />
        {seat?.outOfService !== true && seat !== undefined && (
          <Link href={`/?branch=${encodeURIComponent(seat.branch)}&seat=${seat.id}`} class="button">
            {s.later}
          </Link>
        )}
      </div>
    </>
  )
}

/** Free leads to the free seats of a branch. */
export function Free({ branch, main = false }: { branch: string | undefined; main?: boolean }): JSX.Element {
  const query = branch === undefined || branch === '' ? '' : `?branch=${encodeURIComponent(branch)}`
  return (
    <Link href={`/${query}`} class={main ? 'button main' : 'button'}>
      {t().scan.freeSeats}
    </Link>
  )
}
