import { useSignal } from '@preact/signals'
import { useEffect, useMemo } from 'preact/hooks'
import type { JSX } from 'preact'
import { api, call, type Schema } from '../../api/client.ts'
import { openStream } from '../../api/stream.ts'
import { t, ts } from '../../i18n/text.ts'
import { clock } from '../../i18n/time.ts'
import { layout, type Plan } from '../../map/layout.ts'
import { AreaBox } from '../../map/mark.tsx'
import { Button } from '../../ui/action.tsx'
import { useFocus } from './wall.tsx'

type Seat = Schema<'Seat'>
type Seats = ReadonlyMap<string, Seat>

/** FindSeat shows the free seats of the branch as a list and on a map. It is for reading only. */
export function FindSeat({ branch, onBack }: { branch: Schema<'Branch'>; onBack: () => void }): JSX.Element {
  const text = ts().screen
  const seats = useSeats(branch.code)
  const floorPlan = useSignal<Schema<'GetFloorPlanResponse'> | undefined>(undefined)
  useEffect(() => {
    // Without a floor plan, the map is a grid.
    void call(api.GET('/v1/branches/{branch}/plan', { params: { path: { branch: branch.code } } })).then(
      (p) => {
        floorPlan.value = p
      },
      () => undefined,
    )
  }, [branch.code])
  const ids = [...seats.keys()].join()
  const plan = useMemo(() => layout([...seats.values()], floorPlan.value), [ids, floorPlan.value])
  const heading = useFocus()
  const areas = freeByArea(seats, plan)
  return (
    <main class="wall-find">
      <header class="wall-top">
        <h1 ref={heading} tabIndex={-1}>
          {text.freeSeats}
        </h1>
        <Button kind="main" onClick={onBack}>
          {text.backToCode}
        </Button>
      </header>
      <p>{text.reserveWith(location.host)}</p>
      <div class="wall-find-parts">
        <div class="wall-list">
          {areas.length === 0 && <p role="status">{seats.size === 0 ? t().common.loading : text.noneFree}</p>}
          {areas.map((a) => (
            <section key={a.name}>
              <h2>
                {a.name}
                {a.floor !== '' && <small> {text.floor(a.floor)}</small>}{' '}
                <span class="tag free">{text.freeIn(a.seats.length)}</span>
              </h2>
              <ul class="wall-seats">
                {a.seats.map((s) => (
                  <li key={s.id}>
                    <b>{s.label}</b>
                    {s.availableUntil !== undefined && (
                      <small> {t().common.until(clock(s.availableUntil, branch.timezone))}</small>
                    )}
                  </li>
                ))}
              </ul>
            </section>
          ))}
        </div>
        {seats.size > 0 && <Map plan={plan} seats={seats} />}
      </div>
      <p class="wall-small">{text.returns}</p>
    </main>
  )
}

interface AreaSeats {
  name: string
  floor: string
  seats: Seat[]
}

function freeByArea(seats: Seats, plan: Plan): AreaSeats[] {
  const areas = new globalThis.Map<string, AreaSeats>()
  for (const id of plan.order) {
    const seat = seats.get(id)
    if (seat === undefined || !seat.available) continue
    let area = areas.get(seat.area)
    if (area === undefined)
      areas.set(seat.area, (area = { name: seat.area, floor: plan.places.get(id)?.floor ?? '', seats: [] }))
    area.seats.push(seat)
  }
  return [...areas.values()]
}

/** Map draws free seats as filled squares with their label, and the others as crosses. */
function Map({ plan, seats }: { plan: Plan; seats: Seats }): JSX.Element {
  const text = ts().screen
  const { left, top, right, bottom } = plan.bounds
  const half = plan.seatSize / 2
  const arm = half / 2
  return (
    <figure class="wall-map">
      <svg viewBox={`${left} ${top} ${right - left} ${bottom - top}`} role="img" aria-label={text.map}>
        {plan.areas.map((a) => (
          <AreaBox key={`${a.name} ${a.known}`} area={a} inset={[30, 50]} />
        ))}
        {[...plan.places.values()].map((p) => {
          const free = seats.get(p.id)?.available === true
          return (
            <g key={p.id} class={free ? 'free' : 'taken'} transform={`translate(${p.x} ${p.y})`}>
              {free ? (
                <>
                  <rect x={-half} y={-half} width={plan.seatSize} height={plan.seatSize} rx="10" />
                  <text
                    y={half * 0.15}
                    text-anchor="middle"
                    textLength={p.label.length > 4 ? half * 1.8 : undefined}
                    lengthAdjust="spacingAndGlyphs"
                  >
                    {p.label}
                  </text>
                </>
              ) : (
                <path d={`M${-arm} ${-arm}L${arm} ${arm}M${arm} ${-arm}L${-arm} ${arm}`} />
              )}
            </g>
          )
        })}
      </svg>
      <figcaption>
        <span class="key free" aria-hidden="true" /> {text.legendFree}{' '}
        <span class="key taken" aria-hidden="true">
          ×
        </span>{' '}
        {text.legendTaken}
      </figcaption>
    </figure>
  )
}

/** useSeats follows the seats of a branch while the list is open. The data are public. */
function useSeats(branch: string): Seats {
  const seats = useSignal<Seats>(new globalThis.Map())
  useEffect(() => {
    let parts: Seat[] = []
    const stream = openStream({
      url: () => `/v1/seats:watch?branch=${encodeURIComponent(branch)}`,
      onReopen: () => {
        parts = []
      },
      onEvent: (_, data) => {
        const message = data as Schema<'WatchSeatsResponse'>
        if (message.snapshot !== undefined) {
          parts.push(...message.snapshot.seats)
          if (message.snapshot.more) return
          seats.value = new globalThis.Map(parts.map((s) => [s.id, s]))
          parts = []
        } else if (message.change !== undefined) {
          seats.value = new globalThis.Map(seats.value).set(message.change.id, message.change)
        } else if (message.removed !== undefined) {
          const rest = new globalThis.Map(seats.value)
          rest.delete(message.removed.seatId)
          seats.value = rest
        }
      },
    })
    return () => stream.close()
  }, [branch])
  return seats.value
}
