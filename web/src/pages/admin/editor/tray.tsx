import { useSignal } from '@preact/signals'
import { useRef } from 'preact/hooks'
import type { JSX } from 'preact'
import { ts } from '../../../i18n/text.ts'
import { Button } from '../../../ui/action.tsx'
import { Field } from '../../../ui/field.tsx'
import type { SeatRow } from '../seats/data.ts'
import { toFloor } from './canvas.tsx'
import type { Editor } from './editor.ts'
import { inRows } from './model.ts'

/** Tray shows the seats of the floor that have no place. They are dragged onto the plan, or placed in rows. */
export function Tray({ editor }: { editor: Editor }): JSX.Element | null {
  const text = ts().seats.plan
  const perRow = useSignal(6)
  const distance = useSignal(100)
  const drag = useRef<{ x: number; y: number; moved: boolean } | undefined>(undefined)
  const rows = editor.tray.value
  if (rows.length === 0) return null
  const areas = new Map<string, SeatRow[]>()
  for (const r of rows) areas.set(r.area, [...(areas.get(r.area) ?? []), r])
  const waiting = editor.waiting.value

  function toggle(label: string): void {
    // A selection is either of the tray or of the plan, so that a button acts on one of them.
    const next = new Set(waiting.map((r) => r.label))
    if (!next.delete(label)) next.add(label)
    editor.selected.value = next
  }

  /** over returns the seats as they would be placed at the pointer, or none beside the plan. */
  function over(e: PointerEvent): ReturnType<typeof inRows> {
    const svg = document.querySelector<SVGSVGElement>('.plan-canvas')
    const box = svg?.getBoundingClientRect()
    if (svg === null || box === undefined) return []
    if (e.clientX < box.left || e.clientX > box.right || e.clientY < box.top || e.clientY > box.bottom)
      return []
    const p = toFloor(svg, e.clientX, e.clientY)
    const grid = Math.max(1, editor.grid.value)
    const round = (v: number): number => Math.max(0, Math.round(v / grid) * grid)
    return inRows(editor.waiting.value, perRow.value, distance.value, round(p.x), round(p.y))
  }

  function move(e: PointerEvent, label: string): void {
    const d = drag.current
    if (d === undefined) return
    if (!d.moved && Math.hypot(e.clientX - d.x, e.clientY - d.y) < 6) return
    d.moved = true
    if (!editor.waiting.value.some((r) => r.label === label)) editor.selected.value = new Set([label])
    editor.ghosts.value = over(e)
  }

  function drop(e: PointerEvent): void {
    const [corner] = drag.current?.moved === true ? over(e) : []
    editor.ghosts.value = []
    if (corner !== undefined) editor.place(editor.waiting.value, perRow.value, distance.value, corner)
  }

  return (
    <section class="plan-tray card" aria-label={text.tray}>
      <h2>
        {text.tray} ({rows.length})
      </h2>
      <p>
        <small>{text.trayHint}</small>
      </p>
      <div class="plan-chips">
        {[...areas].map(([area, at]) => (
          <div key={area}>
            <div class="row">
              <h3>{area}</h3>
              <button class="link" type="button" onClick={() => editor.select(at.map((r) => r.label))}>
                {text.selectAll(at.length)}
              </button>
            </div>
            <div class="chips">
              {at.map((r) => {
                const pressed = waiting.includes(r)
                return (
                  <button
                    key={r.label}
                    type="button"
                    class="chip small"
                    aria-pressed={pressed}
                    onPointerDown={(e) => {
                      // A finger scrolls the tray, and drags only what it has selected before.
                      if (e.pointerType === 'touch' && !pressed) return
                      drag.current = { x: e.clientX, y: e.clientY, moved: false }
                      e.currentTarget.setPointerCapture(e.pointerId)
                    }}
                    onPointerMove={(e) => move(e, r.label)}
                    onPointerUp={drop}
                    onPointerCancel={() => {
                      drag.current = undefined
                      editor.ghosts.value = []
                    }}
                    onClick={() => {
                      const moved = drag.current?.moved === true
                      drag.current = undefined
                      if (!moved) toggle(r.label)
                    }}
                  >
                    {r.label}
                  </button>
                )
              })}
            </div>
          </div>
        ))}
      </div>
      <div class="row plan-rows">
        <Field label={text.perRow}>
          {(a) => (
            <input
              {...a}
              type="number"
              min={1}
              max={100}
              value={perRow.value}
              onChange={(e) => (perRow.value = within(e.currentTarget.valueAsNumber, 1, 100, 6))}
            />
          )}
        </Field>
        <Field label={text.distance}>
          {(a) => (
            <input
              {...a}
              type="number"
              min={10}
              max={1000}
              value={distance.value}
              onChange={(e) => (distance.value = within(e.currentTarget.valueAsNumber, 10, 1000, 100))}
            />
          )}
        </Field>
        <Button
          disabled={waiting.length === 0}
          onClick={() => editor.place(waiting, perRow.value, distance.value)}
        >
          {text.placeRows(waiting.length)}
        </Button>
        <Button onClick={() => editor.placeLikeMap()}>{text.placeLikeMap}</Button>
      </div>
    </section>
  )
}

function within(value: number, least: number, most: number, otherwise: number): number {
  return Number.isFinite(value) ? Math.min(most, Math.max(least, Math.round(value))) : otherwise
}
