import { useEffect, useState } from 'preact/hooks'
import type { JSX } from 'preact'
import { ts } from '../../../i18n/text.ts'
import { Button } from '../../../ui/action.tsx'
import { Field } from '../../../ui/field.tsx'
import type { Editor } from './editor.ts'
import { align, distribute, move, placed, rotate, type Placed } from './model.ts'

/** Panel shows the numbers of the selected seats, and the buttons that change them. */
export function Panel({ editor }: { editor: Editor }): JSX.Element {
  const text = ts().seats.plan
  const rows = editor.chosen.value
  const first = rows[0]
  if (first === undefined)
    return (
      <section class="plan-panel card">
        <p>
          <small>{text.nothing}</small>
        </p>
      </section>
    )
  const now = (): Placed[] => placed(editor.drawing.value, editor.selected.value)
  const left = Math.min(...rows.map((r) => r.x))
  const top = Math.min(...rows.map((r) => r.y))
  const same = <T,>(value: (r: Placed) => T): T | undefined =>
    rows.every((r) => value(r) === value(first)) ? value(first) : undefined
  const step = editor.grid.value || 1
  return (
    <section class="plan-panel card" aria-label={text.selection}>
      <h2>{rows.length === 1 ? first.label : text.seats(rows.length)}</h2>
      <div class="plan-numbers">
        <NumberField
          label={text.x}
          value={left}
          most={1_000_000}
          onChange={(x) => editor.step(move(now(), x - left, 0))}
        />
        <NumberField
          label={text.y}
          value={top}
          most={1_000_000}
          onChange={(y) => editor.step(move(now(), 0, y - top))}
        />
        <NumberField
          label={text.angle}
          value={same((r) => r.angle)}
          most={359}
          optional
          onChange={(angle) => editor.step(now().map((r) => ({ ...r, angle })))}
          onClear={() => editor.step(now().map((r) => ({ ...r, angle: undefined })))}
        />
        <Field label={text.desk}>
          {(a) => (
            <input
              {...a}
              maxLength={50}
              value={same((r) => r.desk) ?? ''}
              placeholder={same((r) => r.desk) === undefined ? text.different : undefined}
              onChange={(e) => {
                const desk = e.currentTarget.value.trim()
                editor.step(now().map((r) => ({ ...r, desk })))
              }}
            />
          )}
        </Field>
      </div>
      <div class="plan-buttons">
        <div class="plan-nudge" role="group" aria-label={text.moveBy(step)}>
          <Button label={text.up} onClick={() => editor.nudge(0, -step)}>
            ↑
          </Button>
          <Button label={text.left} onClick={() => editor.nudge(-step, 0)}>
            ←
          </Button>
          <Button label={text.right} onClick={() => editor.nudge(step, 0)}>
            →
          </Button>
          <Button label={text.down} onClick={() => editor.nudge(0, step)}>
            ↓
          </Button>
        </div>
        <Button label={text.turnLeft} onClick={() => editor.step(rotate(now(), -15))}>
          ⟲ 15°
        </Button>
        <Button label={text.turnRight} onClick={() => editor.step(rotate(now(), 15))}>
          ⟳ 15°
        </Button>
        <Button label={text.turnQuarter} onClick={() => editor.step(rotate(now(), 90))}>
          ⟳ 90°
        </Button>
        {rows.length > 1 && (
          <>
            <Button onClick={() => editor.step(align(now(), 'y'))}>{text.row}</Button>
            <Button onClick={() => editor.step(align(now(), 'x'))}>{text.column}</Button>
          </>
        )}
        {rows.length > 2 && (
          <>
            <Button onClick={() => editor.step(distribute(now(), 'x'))}>{text.spreadX}</Button>
            <Button onClick={() => editor.step(distribute(now(), 'y'))}>{text.spreadY}</Button>
          </>
        )}
        <Button onClick={() => editor.duplicate()}>{text.duplicate}</Button>
        <Button onClick={() => editor.unplace()}>{text.unplace}</Button>
      </div>
    </section>
  )
}

interface NumberFieldProps {
  label: string
  value: number | undefined
  most: number
  optional?: boolean
  onChange: (value: number) => void
  onClear?: () => void
}

/** NumberField takes over its number when the user leaves it or presses Enter. */
function NumberField({
  label,
  value,
  most,
  optional = false,
  onChange,
  onClear,
}: NumberFieldProps): JSX.Element {
  const [typed, setTyped] = useState(String(value ?? ''))
  useEffect(() => setTyped(String(value ?? '')), [value])
  return (
    <Field label={label} optional={optional}>
      {(a) => (
        <input
          {...a}
          type="number"
          min={0}
          max={most}
          value={typed}
          onInput={(e) => setTyped(e.currentTarget.value)}
          onChange={() => {
            const n = Math.round(Number(typed))
            if (typed.trim() === '' && optional) onClear?.()
            else if (typed.trim() !== '' && Number.isFinite(n) && n >= 0 && n <= most) onChange(n)
            else setTyped(String(value ?? ''))
          }}
        />
      )}
    </Field>
  )
}
