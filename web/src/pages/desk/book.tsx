import { useSignal } from '@preact/signals'
import { useEffect, useRef } from 'preact/hooks'
import type { JSX } from 'preact'
import { api, call, newKey, type Schema } from '../../api/client.ts'
import { asProblem, type Problem } from '../../api/problem.ts'
import { t, ts } from '../../i18n/text.ts'
import { clock, dateOf, dayAndClock, instant } from '../../i18n/time.ts'
import { natural } from '../../map/layout.ts'
import { serverNow } from '../../state/clock.ts'
import { Button, useAction } from '../../ui/action.tsx'
import { Dialog } from '../../ui/dialog.tsx'
import { Field } from '../../ui/field.tsx'
import { notify } from '../../ui/notice.tsx'
import { DeskFault, endOf, ReasonField } from './act.tsx'
import { branch as deskBranch, scope } from './scope.ts'

type Seat = Schema<'Seat'>

const lengths = [30, 60, 120, 240, 480] // minutes
const most = 12 // seats that are listed at once

interface Props {
  person: Schema<'Person'>
  onClose: () => void
  onBooked: () => void
}

/** BookFor reserves a seat for a person: a time, a free seat by its label, and a reason. */
export function BookFor({ person, onClose, onBooked }: Props): JSX.Element {
  const text = ts().desk
  const code = useSignal(
    scope.value.some((b) => b.code === deskBranch.value?.code)
      ? deskBranch.value?.code
      : scope.value[0]?.code,
  )
  const zone = scope.value.find((b) => b.code === code.value)?.timezone ?? 'UTC'
  const later = useSignal(false)
  const day = useSignal(dateOf(serverNow(), zone))
  const time = useSignal(clock(Math.ceil(serverNow() / 900_000) * 900_000, zone))
  const length = useSignal(120)
  const typed = useSignal('')
  const chosen = useSignal<Seat | undefined>(undefined)
  const reason = useSignal<string>(text.reasons.book)
  const attempts = useSignal(0)
  const seats = useSeats(code.value, later.value, day.value, time.value, length.value, zone, attempts.value)
  const action = useAction()
  // The same seat and time keep their key, so that a repeated call books nothing twice.
  const key = useRef({ of: '', id: '' })

  const startsAt = later.value ? instant(day.value, time.value, zone).getTime() : serverNow()
  const end = new Date(Math.ceil((startsAt + length.value * 60_000) / 60_000) * 60_000)
  const span = t().common.span(
    later.value ? dayAndClock(startsAt, zone) : text.now,
    endOf(new Date(startsAt).toISOString(), end.toISOString(), zone),
  )
  const seat = chosen.value === undefined ? undefined : seats.all?.find((s) => s.id === chosen.value?.id)
  const free = seat?.available === true ? seat : undefined

  async function book(): Promise<void> {
    if (free === undefined) return
    const request = [free.id, later.value, day.value, time.value, length.value].join()
    if (key.current.of !== request) key.current = { of: request, id: newKey() }
    const window = {
      endTime: end.toISOString(),
      ...(later.value ? { startTime: new Date(startsAt).toISOString() } : {}),
    }
    const body = {
      userId: person.id,
      seatId: free.id,
      ...window,
      requestId: key.current.id,
      reason: reason.value.trim(),
    }
    await call(api.POST('/v1/desk/reservations', { body }))
    notify(text.booked(free.label, span))
    onBooked()
    onClose()
  }

  return (
    <Dialog title={text.bookTitle(person.name)} onClose={onClose} kind="sheet">
      <form
        onSubmit={(e) => {
          e.preventDefault()
          void action.run(book).then(() => {
            attempts.value++ // after a failure, another seat may be free
          })
        }}
      >
        {scope.value.length > 1 && (
          <Field label={text.branch}>
            {(attributes) => (
              <select
                {...attributes}
                value={code.value ?? ''}
                onChange={(e) => {
                  code.value = e.currentTarget.value
                  chosen.value = undefined
                }}
              >
                {scope.value.map((b) => (
                  <option key={b.code} value={b.code}>
                    {b.name}
                  </option>
                ))}
              </select>
            )}
          </Field>
        )}
        <fieldset>
          <legend>{text.when}</legend>
          <div class="chips">
            {[false, true].map((l) => (
              <button
                key={String(l)}
                type="button"
                class="chip"
                aria-pressed={later.value === l}
                onClick={() => {
                  later.value = l
                }}
              >
                {l ? text.later : text.fromNow}
              </button>
            ))}
          </div>
          {later.value && (
            <div class="row desk-when">
              <input
                type="date"
                required
                aria-label={text.date}
                min={dateOf(serverNow(), zone)}
                value={day.value}
                onInput={(e) => {
                  day.value = e.currentTarget.value
                }}
              />
              <input
                type="time"
                required
                aria-label={text.start}
                value={time.value}
                onInput={(e) => {
                  time.value = e.currentTarget.value
                }}
              />
            </div>
          )}
          <div class="chips" role="group" aria-label={text.duration}>
            {lengths.map((l) => (
              <button
                key={l}
                type="button"
                class="chip"
                aria-pressed={length.value === l}
                onClick={() => {
                  length.value = l
                }}
              >
                {l < 60 ? t().common.minutes(l) : t().common.hours(l / 60)}
              </button>
            ))}
          </div>
        </fieldset>
        <SeatChoice seats={seats.all} typed={typed} chosen={chosen} zone={zone} />
        <DeskFault problem={seats.problem} zone={zone} />
        <ReasonField value={reason} problem={action.problem.value} seen />
        <p>
          <small>{text.noLimits}</small>
        </p>
        <DeskFault problem={action.problem.value} zone={zone} />
        <div class="row end desk-sticky">
          <Button onClick={onClose}>{t().common.cancel}</Button>
          <Button type="submit" kind="main" busy={action.busy.value} disabled={free === undefined}>
            {free === undefined ? text.chooseSeat : text.bookSeat(free.label, span)}
          </Button>
        </div>
      </form>
    </Dialog>
  )
}

interface SeatChoiceProps {
  seats: readonly Seat[] | undefined
  typed: { value: string }
  chosen: { value: Seat | undefined }
  zone: string
}

/** SeatChoice lists the seats that match what was typed, the free ones first. */
function SeatChoice({ seats, typed, chosen, zone }: SeatChoiceProps): JSX.Element {
  const text = ts().desk
  const words = plain(typed.value)
  const matches = (seats ?? [])
    .filter((s) => plain(s.label).includes(words) || plain(s.area).includes(words))
    .sort((a, b) => Number(b.available) - Number(a.available) || natural(a.label, b.label))
  const shown = matches.slice(0, most)
  return (
    <fieldset>
      <legend>{text.seat}</legend>
      <Field label={text.find} hint={text.seatHint}>
        {(attributes) => (
          <input
            {...attributes}
            type="search"
            autocomplete="off"
            spellcheck={false}
            value={typed.value}
            onInput={(e) => {
              typed.value = e.currentTarget.value
            }}
            onKeyDown={(e) => {
              // Enter takes the first free seat, and does not send the form yet.
              if (e.key !== 'Enter') return
              e.preventDefault()
              const [first] = shown
              if (first?.available === true) chosen.value = first
            }}
          />
        )}
      </Field>
      <p role="status">
        <small>
          {seats === undefined ? t().common.loading : text.freeSeats(seats.filter((s) => s.available).length)}
        </small>
      </p>
      {seats !== undefined && shown.length === 0 && <p>{text.noSeat}</p>}
      <div class="desk-seats">
        {shown.map((s) => (
          <label key={s.id} class="choice">
            <input
              type="radio"
              name="seat"
              value={s.id}
              disabled={!s.available}
              checked={s.available && chosen.value?.id === s.id}
              onChange={() => {
                chosen.value = s
              }}
            />
            <span>
              <b>{s.label}</b> <small>{s.area}</small>
              {!s.available && <small class="desk-taken"> · {unavailable(s, zone)}</small>}
            </span>
          </label>
        ))}
      </div>
      {matches.length > most && (
        <p>
          <small>{text.typeMore(matches.length - most)}</small>
        </p>
      )}
    </fieldset>
  )
}

function unavailable(s: Seat, zone: string): string {
  const text = ts().desk
  if (s.outOfService) return text.outOfService
  return s.nextAvailableAt === undefined ? text.notFree : text.freeFrom(dayAndClock(s.nextAvailableAt, zone))
}

function plain(s: string): string {
  return s.toLowerCase().replace(/[\s\-_.]/g, '')
}

/** useSeats reads the seats of a branch with their state in a window, again after a change and after each attempt. */
function useSeats(
  code: string | undefined,
  later: boolean,
  day: string,
  time: string,
  minutes: number,
  zone: string,
  attempts: number,
): { all: readonly Seat[] | undefined; problem: Problem | undefined } {
  const all = useSignal<readonly Seat[] | undefined>(undefined)
  const problem = useSignal<Problem | undefined>(undefined)
  useEffect(() => {
    if (code === undefined || day === '' || time === '') return
    let current = true
    // Typing a date changes it with each key.
    const timer = setTimeout(() => {
      const start = later ? instant(day, time, zone).getTime() : serverNow()
      const window = {
        startTime: new Date(start).toISOString(),
        endTime: new Date(start + minutes * 60_000).toISOString(),
      }
      readSeats(code, window).then(
        (seats) => {
          if (!current) return
          all.value = seats
          problem.value = undefined
        },
        (e: unknown) => {
          if (!current) return
          all.value = []
          problem.value = asProblem(e)
        },
      )
    }, 200)
    return () => {
      current = false
      clearTimeout(timer)
    }
  }, [code, later, day, time, minutes, attempts])
  return { all: all.value, problem: problem.value }
}

async function readSeats(code: string, window: { startTime: string; endTime: string }): Promise<Seat[]> {
  const seats: Seat[] = []
  for (let pageToken = ''; ;) {
    const page = await call(
      api.GET('/v1/seats', { params: { query: { branch: code, ...window, pageToken } } }),
    )
    seats.push(...page.seats)
    if (page.nextPageToken === '') return seats
    pageToken = page.nextPageToken
  }
}
