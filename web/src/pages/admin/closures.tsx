import { useSignal } from '@preact/signals'
import { useEffect, useRef } from 'preact/hooks'
import type { JSX } from 'preact'
import { api, call, type Schema } from '../../api/client.ts'
import { byLanguage, ts } from '../../i18n/text.ts'
import { here, setQuery } from '../../router.tsx'
import { minute } from '../../state/clock.ts'
import { Button } from '../../ui/action.tsx'
import { branch } from './branch.ts'
import { ChangeClosure, LiftClosure } from './closures/change.tsx'
import { NewClosure } from './closures/new.tsx'
import { scopeText, stateOf } from './closures/scope.ts'
import { useSeatStream } from './live.ts'
import { focusTitle, spanText, useLoaded, Wait, type Loaded } from './parts.tsx'

type Closure = Schema<'Closure'>

/** Section lists the closures of a branch, makes new ones, and changes or lifts them. */
export function Section(): JSX.Element | null {
  const b = branch.value
  return b === undefined ? null : <Closures branch={b} />
}

function Closures({ branch: b }: { branch: Schema<'BranchSettings'> }): JSX.Element {
  const text = ts().hours
  const past = useSignal(false)
  const changing = useSignal<Closure | undefined>(undefined)
  const lifting = useSignal<Closure | undefined>(undefined)
  const creating = here.value.query.has('new')
  const seats = useLoaded(() => allSeats(b.code), b.code)
  const closures = useLoaded(
    () =>
      call(api.GET('/v1/admin/closures', { params: { query: { branch: b.code, includePast: past.value } } })),
    b.code + String(past.value),
  )
  useSeatStream(b.code, () => void closures.reload())
  useSweepEnd(closures)
  const labels = new Map(seats.data.value?.map((s) => [s.id, s.label]))
  const close = (): void => {
    setQuery({ new: '' }, true)
    focusTitle()
  }

  return (
    <>
      {!creating && (
        <p>
          <Button kind="main" onClick={() => setQuery({ new: '1' })}>
            {text.newClosure}
          </Button>
        </p>
      )}
      {creating && (
        <Wait of={seats}>
          {(all) => (
            <NewClosure
              branch={b}
              seats={all}
              onCancel={close}
              onDone={() => {
                close()
                void closures.reload()
              }}
            />
          )}
        </Wait>
      )}
      <div class="row spread">
        <label class="choice">
          <input
            type="checkbox"
            checked={past.value}
            onChange={(e) => (past.value = e.currentTarget.checked)}
          />
          {text.showPast}
        </label>
        <Button onClick={() => void closures.reload()}>{text.refresh}</Button>
      </div>
      <Wait of={closures} zone={b.timezone}>
        {({ closures: list }) =>
          list.length === 0 ? (
            <p>{text.noClosures}</p>
          ) : (
            <ul class="plain-list">
              {list.map((c) => (
                <li key={c.id} class="card closure">
                  <ClosureCard closure={c} branch={b} labels={labels} />
                  {stateOf(c, minute.value) !== 'lifted' && (
                    <div class="row end">
                      <Button
                        label={`${text.change}: ${scopeText(c, labels)}`}
                        onClick={() => (changing.value = c)}
                      >
                        {text.change}
                      </Button>
                      {stateOf(c, minute.value) !== 'ended' && (
                        <Button
                          kind="danger"
                          label={`${text.lift}: ${scopeText(c, labels)}`}
                          onClick={() => (lifting.value = c)}
                        >
                          {text.lift}
                        </Button>
                      )}
                    </div>
                  )}
                </li>
              ))}
            </ul>
          )
        }
      </Wait>
      {changing.value !== undefined && (
        <ChangeClosure
          closure={changing.value}
          zone={b.timezone}
          onClose={() => {
            changing.value = undefined
            void closures.reload()
          }}
        />
      )}
      {lifting.value !== undefined && (
        <LiftClosure
          closure={lifting.value}
          zone={b.timezone}
          onClose={() => {
            lifting.value = undefined
            void closures.reload()
          }}
        />
      )}
    </>
  )
}

const firstPause = 500 // milliseconds
const longestPause = 16_000

/**
 * useSweepEnd reads the closures again until their sweeps have ended, which takes seconds. The stream of
 * seats has the changes of the present only: it is silent when a reservation of tomorrow is cancelled.
 */
function useSweepEnd(closures: Loaded<Schema<'ListClosuresResponse'>>): void {
  const pause = useRef(firstPause)
  const answer = closures.data.value
  useEffect(() => {
    if (answer?.closures.some((c) => c.sweep?.done === false) !== true) {
      pause.current = firstPause
      return
    }
    const timer = setTimeout(() => {
      if (document.visibilityState === 'visible') void closures.reload() // else it is read when the tab is shown
    }, pause.current)
    pause.current = Math.min(longestPause, pause.current * 2)
    return () => clearTimeout(timer)
  }, [answer])
}

interface ClosureCardProps {
  closure: Closure
  branch: Schema<'BranchSettings'>
  labels: ReadonlyMap<string, string>
}

/** ClosureCard tells what is closed, from when to when, why, and what became of the reservations. */
export function ClosureCard({ closure: c, branch: b, labels }: ClosureCardProps): JSX.Element {
  const text = ts().hours
  const state = stateOf(c, minute.value)
  return (
    <>
      <h2>
        {scopeText(c, labels)}{' '}
        <span class={`tag ${state === 'active' ? 'taken' : 'warn'}`}>{text.state[state]}</span>
      </h2>
      <p>{spanText(c.startTime, c.endTime, b.timezone)}</p>
      {byLanguage(c.note) !== '' && <p class="note">{byLanguage(c.note)}</p>}
      {c.onBookings === 'BOOKING_ACTION_CANCEL' ? (
        <Progress sweep={c.sweep} />
      ) : (
        <p>
          <small>{text.kept}</small>
        </p>
      )}
    </>
  )
}

function Progress({ sweep }: { sweep: Schema<'SweepProgress'> | undefined }): JSX.Element | null {
  const text = ts().hours
  if (sweep === undefined) return null
  if (sweep.done)
    return (
      <p>
        <small>{text.swept(sweep.ended)}</small>
      </p>
    )
  const label = text.sweeping(sweep.ended, sweep.left)
  return (
    <p role="status">
      <progress max={Math.max(1, sweep.ended + sweep.left)} value={sweep.ended} aria-label={label} /> {label}
    </p>
  )
}

/** allSeats reads the seats of a branch, page by page. */
export async function allSeats(code: string): Promise<Schema<'Seat'>[]> {
  const seats: Schema<'Seat'>[] = []
  let pageToken = ''
  do {
    const query = { branch: code, ...(pageToken === '' ? {} : { pageToken }) }
    const page = await call(api.GET('/v1/seats', { params: { query } }))
    seats.push(...page.seats)
    pageToken = page.nextPageToken
  } while (pageToken !== '')
  return seats
}
