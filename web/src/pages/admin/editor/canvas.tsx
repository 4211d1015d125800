import { useSignal } from '@preact/signals'
import { useEffect, useId, useMemo, useRef } from 'preact/hooks'
import type { JSX } from 'preact'
import { ts } from '../../../i18n/text.ts'
import type { Direction } from '../../../map/layout.ts'
import { metres, type Editor } from './editor.ts'
import { move, placed, type Placed } from './model.ts'

interface Point {
  x: number
  y: number
}

/** Gesture is what the pointer does at the moment: it drags the selected seats, draws a box, or moves the plan. */
type Gesture =
  | { kind: 'seats'; from: Point }
  | { kind: 'box'; from: Point; to: Point; keep: ReadonlySet<string> }
  | { kind: 'pan'; from: Point }
  | { kind: 'pinch'; distance: number; middle: Point }

const arrows: Record<string, Direction> = {
  ArrowLeft: 'left',
  ArrowUp: 'up',
  ArrowRight: 'right',
  ArrowDown: 'down',
}

/** Canvas draws a floor and lets its seats be selected and moved, by pointer, touch and keyboard. */
export function Canvas({ editor, boxes }: { editor: Editor; boxes: boolean }): JSX.Element {
  const svg = useRef<SVGSVGElement>(null)
  const id = useId()
  const gesture = useSignal<Gesture | undefined>(undefined)
  const pointers = useRef(new Map<number, Point>())
  const text = ts().seats.plan

  /** pointOf returns the place on the floor of a pointer. */
  function pointOf(e: { clientX: number; clientY: number }): Point {
    return toFloor(svg.current, e.clientX, e.clientY)
  }

  useEffect(() => {
    const element = svg.current
    // Preact listens passively, and a passive listener cannot keep the browser from zooming the page.
    const wheel = (e: WheelEvent): void => {
      if (!e.ctrlKey) return
      e.preventDefault()
      editor.zoom(e.deltaY < 0 ? 1.15 : 1 / 1.15, pointOf(e))
    }
    element?.addEventListener('wheel', wheel, { passive: false })
    return () => element?.removeEventListener('wheel', wheel)
  }, [editor])

  function down(e: PointerEvent): void {
    const element = svg.current
    if (element === null || e.button > 1) return
    element.focus({ preventScroll: true })
    element.setPointerCapture(e.pointerId)
    pointers.current.set(e.pointerId, { x: e.clientX, y: e.clientY })
    if (pointers.current.size === 2) {
      editor.moving.value = undefined
      gesture.value = { kind: 'pinch', ...spread() }
      return
    }
    const label =
      e.target instanceof Element ? e.target.closest('[data-label]')?.getAttribute('data-label') : null
    const more = e.shiftKey || e.ctrlKey || e.metaKey
    if (e.button === 1 || label == null) {
      const pan = e.button === 1 || (e.pointerType === 'touch' && !boxes)
      const from = pointOf(e)
      gesture.value = pan
        ? { kind: 'pan', from }
        : { kind: 'box', from, to: from, keep: more ? editor.selected.value : new Set() }
      return
    }
    if (more) editor.toggle(label)
    else if (!editor.selected.value.has(label)) editor.select([label])
    editor.active.value = label
    if (editor.selected.value.has(label)) gesture.value = { kind: 'seats', from: pointOf(e) }
  }

  function drag(e: PointerEvent): void {
    if (!pointers.current.has(e.pointerId)) return
    pointers.current.set(e.pointerId, { x: e.clientX, y: e.clientY })
    const g = gesture.value
    const to = pointOf(e)
    if (g?.kind === 'seats') {
      const dx = to.x - g.from.x
      const dy = to.y - g.from.y
      // A trembling finger is no drag.
      const still = editor.moving.value === undefined && Math.hypot(dx, dy) < editor.view.value.width / 150
      if (!still) editor.moving.value = snapped(dx, dy)
    } else if (g?.kind === 'box') {
      gesture.value = { ...g, to }
      editor.selected.value = new Set([...g.keep, ...inside(editor.shown.value, g.from, to)])
    } else if (g?.kind === 'pan') {
      const v = editor.view.value
      editor.view.value = { ...v, x: v.x + g.from.x - to.x, y: v.y + g.from.y - to.y }
    } else if (g?.kind === 'pinch') {
      const now = spread()
      editor.zoom(now.distance / Math.max(1, g.distance), toFloor(svg.current, now.middle.x, now.middle.y))
      gesture.value = { kind: 'pinch', ...now }
    }
  }

  /** snapped returns a drag by which the first selected seat arrives on the grid. */
  function snapped(dx: number, dy: number): { dx: number; dy: number } {
    const rows = placed(editor.drawing.value, editor.selected.value)
    const [before] = rows
    const [after] = move(rows, dx, dy, editor.grid.value)
    if (before === undefined || after === undefined) return { dx: 0, dy: 0 }
    return { dx: after.x - before.x, dy: after.y - before.y }
  }

  function up(e: PointerEvent): void {
    if (!pointers.current.delete(e.pointerId)) return
    const by = editor.moving.value
    editor.moving.value = undefined
    if (gesture.value?.kind === 'seats' && by !== undefined && (by.dx !== 0 || by.dy !== 0))
      editor.nudge(by.dx, by.dy)
    const g = gesture.value
    if (g?.kind === 'box' && g.from.x === g.to.x && g.from.y === g.to.y) editor.selected.value = g.keep
    gesture.value = undefined
  }

  function spread(): { distance: number; middle: Point } {
    const [a = { x: 0, y: 0 }, b = a] = pointers.current.values()
    return { distance: Math.hypot(a.x - b.x, a.y - b.y), middle: { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 } }
  }

  function key(e: KeyboardEvent): void {
    const direction = arrows[e.key]
    const command = e.ctrlKey || e.metaKey
    if (direction !== undefined) {
      const step = e.shiftKey || editor.grid.value === 0 ? 1 : editor.grid.value
      const dx = direction === 'left' ? -step : direction === 'right' ? step : 0
      const dy = direction === 'up' ? -step : direction === 'down' ? step : 0
      if (command || editor.chosen.value.length === 0) editor.go(direction)
      else editor.nudge(dx, dy)
    } else if (e.key === ' ')
      editor.active.value === '' ? editor.go('right') : editor.toggle(editor.active.value)
    else if (e.key === 'Enter') editor.select(editor.active.value === '' ? [] : [editor.active.value])
    else if (e.key === 'Escape') editor.select([])
    else if (e.key === 'Delete' || e.key === 'Backspace') editor.unplace()
    else if (command && e.key.toLowerCase() === 'a') editor.select(editor.shown.value.map((r) => r.label))
    else if (command && e.key.toLowerCase() === 'd') editor.duplicate()
    else if (!command && e.key === '+') editor.zoom(1.25)
    else if (!command && e.key === '-') editor.zoom(1 / 1.25)
    else if (!command && e.key === '0') editor.fit()
    else return
    e.preventDefault()
  }

  const v = editor.view.value
  const rows = editor.shown.value
  const chosen = new Map(editor.chosen.value.map((r) => [r.label, r]))
  const g = gesture.value
  const active = editor.active.value
  const idOf = (label: string): string => `${id}-${encodeURIComponent(label)}` // an id has no blank
  const grid = Math.max(editor.grid.value, 25) * (v.width > 4000 ? 4 : 1)
  return (
    <>
      <svg
        ref={svg}
        class="plan-canvas"
        viewBox={`${v.x} ${v.y} ${v.width} ${v.height}`}
        tabIndex={0}
        role={rows.length > 0 ? 'listbox' : 'img'}
        aria-multiselectable={rows.length > 0 ? true : undefined}
        aria-label={text.canvas}
        aria-describedby={`${id}-keys`}
        aria-activedescendant={rows.some((r) => r.label === active) ? idOf(active) : undefined}
        onPointerDown={down}
        onPointerMove={drag}
        onPointerUp={up}
        onPointerCancel={up}
        onKeyDown={key}
        onFocus={() => {
          if (active === '') editor.active.value = rows[0]?.label ?? ''
        }}
      >
        <defs>
          <pattern id={`${id}-grid`} width={grid} height={grid} patternUnits="userSpaceOnUse">
            <path class="plan-grid" d={`M${grid} 0H0V${grid}`} />
          </pattern>
        </defs>
        <rect
          x="0"
          y="0"
          width={Math.max(v.x + 3 * v.width, 0)}
          height={Math.max(v.y + 3 * v.height, 0)}
          fill={`url(#${id}-grid)`}
        />
        <path
          class="plan-edge"
          d={`M${Math.max(v.x + 3 * v.width, 0)} 0H0V${Math.max(v.y + 3 * v.height, 0)}`}
        />
        <Outlines rows={rows.map((r) => chosen.get(r.label) ?? r)} size={editor.seatSize} />
        {rows.map((r) => (
          <SeatMark
            key={r.label}
            id={idOf(r.label)}
            row={chosen.get(r.label) ?? r}
            size={editor.seatSize}
            selected={chosen.has(r.label)}
            active={r.label === active}
          />
        ))}
        {editor.ghosts.value.map((r) => (
          <rect key={r.label} class="plan-ghost" x={r.x - 30} y={r.y - 30} width="60" height="60" rx="10" />
        ))}
        {g?.kind === 'box' && (
          <rect
            class="plan-box"
            x={Math.min(g.from.x, g.to.x)}
            y={Math.min(g.from.y, g.to.y)}
            width={Math.abs(g.from.x - g.to.x)}
            height={Math.abs(g.from.y - g.to.y)}
          />
        )}
      </svg>
      <details class="plan-keys">
        <summary>{text.keyboard}</summary>
        <p id={`${id}-keys`}>{text.keys}</p>
      </details>
    </>
  )
}

/** toFloor returns the place on the floor, in centimetres, of a point of the window. */
export function toFloor(svg: SVGSVGElement | null, clientX: number, clientY: number): Point {
  const matrix = svg?.getScreenCTM()?.inverse()
  if (matrix === undefined) return { x: 0, y: 0 }
  const p = new DOMPoint(clientX, clientY).matrixTransform(matrix)
  return { x: p.x, y: p.y }
}

function inside(rows: readonly Placed[], a: Point, b: Point): string[] {
  const left = Math.min(a.x, b.x)
  const right = Math.max(a.x, b.x)
  const top = Math.min(a.y, b.y)
  const bottom = Math.max(a.y, b.y)
  return rows.filter((r) => r.x >= left && r.x <= right && r.y >= top && r.y <= bottom).map((r) => r.label)
}

/** Outlines draws the desks, and the names of the areas above their seats. */
function Outlines({ rows, size }: { rows: readonly Placed[]; size: number }): JSX.Element {
  const desks = new Map<string, Placed[]>()
  const areas = new Map<string, Placed[]>()
  for (const r of rows) {
    const desk = JSON.stringify([r.area, r.desk])
    if (r.desk !== '') desks.set(desk, [...(desks.get(desk) ?? []), r])
    const area = areas.get(r.area)
    if (area === undefined) areas.set(r.area, [r])
    else area.push(r)
  }
  return (
    <g aria-hidden="true">
      {[...desks].map(([name, at]) => {
        const left = Math.min(...at.map((r) => r.x)) - size * 0.62
        const top = Math.min(...at.map((r) => r.y)) - size * 0.62
        const right = Math.max(...at.map((r) => r.x)) + size * 0.62
        const bottom = Math.max(...at.map((r) => r.y)) + size * 0.62
        return (
          <rect
            key={name}
            class="plan-desk"
            x={left}
            y={top}
            width={right - left}
            height={bottom - top}
            rx="12"
          />
        )
      })}
      {[...areas].map(([name, at]) => (
        <text
          key={name}
          class="plan-area"
          font-size={size * 0.5}
          x={Math.min(...at.map((r) => r.x)) - size / 2}
          y={Math.min(...at.map((r) => r.y)) - size * 0.85}
        >
          {name}
        </text>
      ))}
    </g>
  )
}

interface SeatMarkProps {
  id: string
  row: Placed
  size: number
  selected: boolean
  active: boolean
}

/** SeatMark draws a seat. It keeps what it drew: Preact skips an element that is the same object as before. */
function SeatMark(props: SeatMarkProps): JSX.Element {
  const { id, row, size, selected, active } = props
  return useMemo(() => drawSeat(props), [id, row, size, selected, active])
}

function drawSeat({ id, row, size, selected, active }: SeatMarkProps): JSX.Element {
  const half = size / 2
  const name = [row.label, row.area, row.outOfService ? ts().seats.list.outOfService : '']
    .filter((s) => s !== '')
    .join(', ')
  // Screen readers say the active seat only: a place for each of 1,000 seats would cost time and say nothing.
  const said = active ? ts().seats.plan.seatAt(name, metres(row.x), metres(row.y)) : name
  return (
    <g
      id={id}
      data-label={row.label}
      class={`plan-seat${selected ? ' selected' : ''}${active ? ' active' : ''}`}
      role="option"
      aria-selected={selected}
      aria-label={said}
      transform={`translate(${row.x} ${row.y})`}
    >
      <g transform={`rotate(${row.angle ?? 0})`}>
        <rect x={-half} y={-half} width={size} height={size} rx={size * 0.18} />
        {row.angle !== undefined && <path d={`M${-half * 0.7} ${half * 0.78}H${half * 0.7}`} />}
      </g>
      {active && <circle class="plan-focus" r={size * 0.82} />}
      <text font-size={Math.min(size * 0.34, (size * 1.5) / row.label.length)} y={size * 0.1}>
        {row.label}
      </text>
    </g>
  )
}
