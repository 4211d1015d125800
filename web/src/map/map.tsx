import { effect } from '@preact/signals'
import { useEffect, useRef } from 'preact/hooks'
import type { JSX } from 'preact'
import { t } from '../i18n/text.ts'
import { lookOf, looks, nameOf } from '../pages/now/look.ts'
import { choice, matches } from '../pages/now/choice.ts'
import { plan, seat } from '../state/seats.ts'
import { findByLabel, neighbour, type Direction, type Place, type Plan } from './layout.ts'
import { AreaBox, outline, Sign, signs } from './mark.tsx'
import { useZoom } from './zoom.ts'

interface MapProps {
  /** Name of the branch. */
  branch: string
  onOpen: (id: string) => void
}

const arrows: Readonly<Record<string, Direction>> = {
  ArrowLeft: 'left',
  ArrowUp: 'up',
  ArrowRight: 'right',
  ArrowDown: 'down',
}

/**
 * SeatMap is the map of the seats of the store. It is one tab stop: arrow keys move to the next seat,
 * Enter opens it, and typing a label jumps to it.
 */
export function SeatMap({ branch, onOpen }: MapProps): JSX.Element {
  const p = plan.value
  const scroller = useRef<HTMLDivElement>(null)
  const drawing = useRef<SVGSVGElement>(null)
  const zoom = useZoom(scroller, drawing, p)
  const current = useRef('')
  const typed = useRef({ text: '', at: 0 })

  const element = (id: string): SVGGElement | null =>
    drawing.current?.querySelector(`[data-id="${id}"]`) ?? null

  /** setCurrent makes a seat the one that the tab key reaches. */
  const setCurrent = (id: string): void => {
    element(current.current)?.setAttribute('tabindex', '-1')
    current.current = id
    element(id)?.setAttribute('tabindex', '0')
  }
  const move = (id: string | undefined): void => {
    if (id === undefined) return
    setCurrent(id)
    element(id)?.focus({ preventScroll: true })
    const place = p.places.get(id)
    if (place !== undefined) zoom.reveal(place.x, place.y, p.seatSize)
  }

  // The seat of the tab key: the open one, else the one of before, else the first one.
  useEffect(() => {
    const wanted = [choice.peek().seat, current.current, p.order[0] ?? ''].find((id) => p.places.has(id))
    if (wanted !== undefined) setCurrent(wanted)
  }, [p])

  // A filter by area shows the area; the filter may have come with the address.
  useEffect(
    () =>
      effect(() => {
        const area = choice.value.area
        const boxes = p.areas.filter((a) => a.name === area)
        if (boxes.length > 0) zoom.show(boxes)
      }),
    [p],
  )

  function onKeyDown(e: KeyboardEvent): void {
    if (e.ctrlKey || e.altKey || e.metaKey) return
    const from = current.current
    const direction = arrows[e.key]
    const text = performance.now() - typed.current.at < 1200 ? typed.current.text : ''
    if (direction !== undefined) move(neighbour(p, from, direction))
    else if (e.key === 'Home') move(p.order[0])
    else if (e.key === 'End') move(p.order.at(-1))
    else if (e.key === 'Enter' || (e.key === ' ' && text === '')) onOpen(from)
    else if (e.key === '+' || (e.key === '-' && text === '')) zoom.by(e.key === '+' ? 1.4 : 1 / 1.4)
    else if (e.key.length === 1) {
      typed.current = { text: text + e.key, at: performance.now() }
      move(findByLabel(p, text + e.key))
    } else return
    e.preventDefault()
  }

  const n = t().now
  const { right, bottom } = p.bounds
  return (
    <div class="map">
      {/* The listeners are not on the drawing: a listener for the focus makes an SVG a tab stop. */}
      <div
        class="map-scroll"
        ref={scroller}
        onKeyDown={onKeyDown}
        onFocusIn={(e) => {
          const id = (e.target as Element).closest('[data-id]')?.getAttribute('data-id')
          if (id && id !== current.current) setCurrent(id)
        }}
        onClick={(e) => {
          const id = (e.target as Element).closest('[data-id]')?.getAttribute('data-id')
          if (id && !zoom.dragged()) onOpen(id)
        }}
      >
        <svg
          ref={drawing}
          viewBox={`0 0 ${right} ${bottom}`}
          role="application"
          aria-label={n.mapOf(branch)}
          aria-describedby="map-hint"
        >
          <Ground plan={p} />
          {p.order.map((id) => {
            const place = p.places.get(id)
            return place === undefined ? null : <SeatMark key={id} place={place} size={p.seatSize} />
          })}
        </svg>
      </div>
      <p id="map-hint" class="visually-hidden">
        {n.mapHint}
      </p>
      <div class="map-foot">
        <ul class="legend" aria-label={n.legend}>
          {looks.map((look) => (
            <li key={look}>
              <Sign look={look} /> {n.look[look]}
            </li>
          ))}
        </ul>
        <div class="map-buttons">
          <button type="button" class="icon-button" aria-label={n.zoomIn} onClick={() => zoom.by(1.4)}>
            +
          </button>
          <button type="button" class="icon-button" aria-label={n.zoomOut} onClick={() => zoom.by(1 / 1.4)}>
            −
          </button>
          <button type="button" class="icon-button" aria-label={n.fit} onClick={() => zoom.show([p.bounds])}>
            <svg viewBox="0 0 24 24" aria-hidden="true">
              <path
                d="M4 9V4h5M15 4h5v5M20 15v5h-5M9 20H4v-5"
                fill="none"
                stroke="currentColor"
                stroke-width="2"
              />
            </svg>
          </button>
        </div>
      </div>
    </div>
  )
}

/** Ground is what does not change with the seats: floors, areas and desks. */
function Ground({ plan: p }: { plan: Plan }): JSX.Element {
  return (
    <g aria-hidden="true">
      {p.floors.length > 1 &&
        p.floors.map((f) => (
          <text key={f.name} class="floor-name" x={f.left + 10} y={f.top + 45}>
            {t().now.floor(f.name)}
          </text>
        ))}
      {p.areas.map((a) => (
        <AreaBox key={`${a.name} ${a.known}`} area={a} inset={[20, 46]} />
      ))}
      {p.desks.map((d) => (
        <rect
          key={`${d.area} ${d.name} ${d.left} ${d.top}`}
          class="desk"
          x={d.left - 14}
          y={d.top - 14}
          width={d.right - d.left + 28}
          height={d.bottom - d.top + 28}
          rx="10"
        />
      ))}
    </g>
  )
}

/** SeatMark is one seat. It is drawn again only when this seat changes. */
function SeatMark({ place, size }: { place: Place; size: number }): JSX.Element | null {
  const s = seat(place.id)?.value
  if (s === undefined) return null
  const look = lookOf(s)
  const off = matches(s) ? '' : ' off'
  const open = choice.value.seat === s.id ? ' open' : ''
  return (
    <g
      class={`seat ${look}${off}${open}`}
      data-id={s.id}
      role="button"
      tabindex={-1}
      aria-label={nameOf(s)}
      transform={`translate(${place.x} ${place.y})`}
    >
      {place.known && (
        <path
          class="back"
          d={`M${-size * 0.32} ${size * 0.6}h${size * 0.64}`}
          transform={`rotate(${place.angle})`}
        />
      )}
      <path class="shape" d={outline(look, size)} />
      <text
        class="label"
        y={signs[look] === '' ? size * 0.1 : -size * 0.03}
        font-size={size * Math.min(0.3, 1.35 / s.label.length)}
      >
        {s.label}
      </text>
      {signs[look] !== '' && (
        <text class="mark" y={size * 0.36} font-size={size * 0.38}>
          {signs[look]}
        </text>
      )}
    </g>
  )
}
