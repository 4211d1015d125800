import { useSignal } from '@preact/signals'
import { useEffect, useId, useRef } from 'preact/hooks'
import type { JSX } from 'preact'
import { api, call, newKey, type Schema } from '../../../api/client.ts'
import { t, ts } from '../../../i18n/text.ts'
import { addDays, dateOf } from '../../../i18n/time.ts'
import { serverNow } from '../../../state/clock.ts'
import { Button } from '../../../ui/action.tsx'
import { Field } from '../../../ui/field.tsx'
import { ImpactDialog } from '../../../ui/impact.tsx'
import { filled, NoteFields, type Note } from '../../../ui/note.tsx'
import { notify } from '../../../ui/notice.tsx'
import { useEdits } from '../../../ui/unsaved.ts'
import { momentOf, MomentField, spanText, timeOf, type Moment } from '../parts.tsx'

interface NewClosureProps {
  branch: Schema<'BranchSettings'>
  seats: readonly Schema<'Seat'>[]
  onCancel: () => void
  onDone: () => void
}

type What = 'branch' | 'area' | 'seats'

interface Span {
  /** start: undefined is now. */
  start: Moment | undefined
  /** end: undefined is open. */
  end: Moment | undefined
}

/** daySpan returns the span of some whole days, the first of them `from` days after today. */
function daySpan(from: number, to: number, zone: string): Span {
  const today = dateOf(serverNow(), zone)
  return {
    start: { date: addDays(today, from), time: '00:00' },
    end: { date: addDays(today, to), time: '00:00' },
  }
}

/** NewClosure is the form for a closure: what, when, and the text for students. */
export function NewClosure({ branch: b, seats, onCancel, onDone }: NewClosureProps): JSX.Element {
  const text = ts().hours
  const zone = b.timezone
  const what = useSignal<What>(b.areas.length > 1 ? 'area' : 'branch')
  const area = useSignal(b.areas[0]?.name ?? '')
  const chosen = useSignal<ReadonlySet<string>>(new Set())
  const span = useSignal<Span>(daySpan(1, 2, zone))
  const note = useSignal<Note>({})
  const faults = useSignal<{ end?: string; seats?: string }>({})
  const order = useSignal<Schema<'CreateClosureRequest'> | undefined>(undefined)
  const heading = useRef<HTMLHeadingElement>(null)
  const name = useId()
  const edits = useEdits(ts().admin.leave)
  useEffect(() => heading.current?.focus(), [])

  function check(): void {
    const { start, end } = span.value
    const from = start === undefined ? undefined : timeOf(start, zone)
    const to = end === undefined ? undefined : timeOf(end, zone)
    const found: { end?: string; seats?: string } = {}
    if ((start !== undefined && from === undefined) || (end !== undefined && to === undefined))
      found.end = text.noTime
    else if (to !== undefined && Date.parse(to) <= (from === undefined ? serverNow() : Date.parse(from))) {
      found.end = text.endBeforeStart
    }
    if (what.value === 'seats' && chosen.value.size === 0) found.seats = text.noSeats
    faults.value = found
    if (Object.keys(found).length > 0) return
    order.value = {
      branch: b.code,
      ...(what.value === 'area' ? { area: area.value } : {}),
      ...(what.value === 'seats' ? { seatIds: [...chosen.value] } : {}),
      ...(from === undefined ? {} : { startTime: from }),
      ...(to === undefined ? {} : { endTime: to }),
      note: filled(note.value),
      requestId: newKey(),
    }
  }

  const whats: [What, string][] = [
    ['area', text.oneArea],
    ['seats', text.someSeats],
    ['branch', text.wholeBranch],
  ]
  return (
    <section class="card" aria-labelledby={`${name}-title`}>
      <h2 id={`${name}-title`} ref={heading} tabIndex={-1}>
        {text.newClosure}
      </h2>
      <form
        noValidate
        onInput={edits.edit}
        onSubmit={(e) => {
          e.preventDefault()
          check()
        }}
      >
        <fieldset>
          <legend>{text.what}</legend>
          <div class="row">
            {whats.map(([w, label]) => (
              <label class="choice" key={w}>
                <input
                  type="radio"
                  name={name}
                  checked={what.value === w}
                  onChange={() => (what.value = w)}
                />
                {label}
              </label>
            ))}
          </div>
          {what.value === 'area' && (
            <Field label={text.area}>
              {(a) => (
                <select {...a} value={area.value} onChange={(e) => (area.value = e.currentTarget.value)}>
                  {b.areas.map((one) => (
                    <option key={one.name} value={one.name}>
                      {one.floor === '' ? one.name : `${one.name} (${one.floor})`}
                    </option>
                  ))}
                </select>
              )}
            </Field>
          )}
          {what.value === 'seats' && (
            <SeatPicker
              seats={seats}
              chosen={chosen.value}
              onChange={(c) => (chosen.value = c)}
              fault={faults.value.seats}
            />
          )}
        </fieldset>
        <When zone={zone} span={span.value} onChange={(s) => (span.value = s)} fault={faults.value.end} />
        <NoteFields legend={ts().admin.note.legend} value={note.value} onChange={(n) => (note.value = n)} />
        <div class="row end">
          <Button
            onClick={() => {
              edits.release()
              onCancel()
            }}
          >
            {t().common.cancel}
          </Button>
          <Button type="submit" kind="main">
            {text.preview}
          </Button>
        </div>
      </form>
      {order.value !== undefined && (
        <ImpactDialog
          title={text.newClosure}
          zone={zone}
          confirm={text.closeNow}
          initial="BOOKING_ACTION_CANCEL"
          ownNote
          send={async ({ note: _none, ...change }) => {
            const { impact } = await call(
              api.POST('/v1/admin/closures', { body: { ...order.value, ...change } }),
            )
            return impact
          }}
          onClose={() => (order.value = undefined)}
          onDone={() => {
            order.value = undefined
            edits.release()
            notify(text.closureMade)
            onDone()
          }}
        >
          <p>
            <strong>{closedText(order.value, seats)}</strong>
            <br />
            {spanText(
              order.value.startTime ?? new Date(serverNow()).toISOString(),
              order.value.endTime,
              zone,
            )}
          </p>
        </ImpactDialog>
      )}
    </section>
  )
}

function closedText(order: Schema<'CreateClosureRequest'>, seats: readonly Schema<'Seat'>[]): string {
  if (order.area !== undefined) return order.area
  if (order.seatIds === undefined) return ts().hours.wholeBranch
  const ids = new Set(order.seatIds)
  return ts().hours.seats(
    seats
      .filter((s) => ids.has(s.id))
      .map((s) => s.label)
      .join(', '),
  )
}

interface WhenProps {
  zone: string
  span: Span
  onChange: (s: Span) => void
  fault: string | undefined
}

/** When edits the span of a closure. The usual ones are one press. */
function When({ zone, span, onChange, fault }: WhenProps): JSX.Element {
  const text = ts().hours
  const presets: [string, Span][] = [
    [text.todayRest, { ...daySpan(0, 1, zone), start: undefined }],
    [text.tomorrow, daySpan(1, 2, zone)],
    [text.week7, daySpan(1, 8, zone)],
    [text.untilLifted, { start: undefined, end: undefined }],
  ]
  const same = (s: Span): boolean => JSON.stringify(s) === JSON.stringify(span)
  const first = momentOf(serverNow(), zone)
  const start = span.start ?? first
  return (
    <fieldset>
      <legend>{text.when}</legend>
      <div class="chips">
        {presets.map(([label, s]) => (
          <button key={label} type="button" class="chip" aria-pressed={same(s)} onClick={() => onChange(s)}>
            {label}
          </button>
        ))}
      </div>
      <div class="row moments">
        <div>
          <label class="choice">
            <input
              type="checkbox"
              checked={span.start === undefined}
              onChange={(e) => onChange({ ...span, start: e.currentTarget.checked ? undefined : first })}
            />
            {text.fromNow}
          </label>
          {span.start !== undefined && (
            <MomentField
              label={text.from}
              value={span.start}
              onChange={(m) => onChange({ ...span, start: m })}
            />
          )}
        </div>
        <div>
          <label class="choice">
            <input
              type="checkbox"
              checked={span.end === undefined}
              onChange={(e) => {
                const nextDay = { ...start, date: addDays(start.date, 1) }
                onChange({ ...span, end: e.currentTarget.checked ? undefined : nextDay })
              }}
            />
            {text.untilLifted}
          </label>
          {span.end !== undefined && (
            <MomentField
              label={text.to}
              value={span.end}
              fault={fault}
              onChange={(m) => onChange({ ...span, end: m })}
            />
          )}
        </div>
      </div>
      <small>{text.zone(zone)}</small>
    </fieldset>
  )
}

interface SeatPickerProps {
  seats: readonly Schema<'Seat'>[]
  chosen: ReadonlySet<string>
  onChange: (chosen: ReadonlySet<string>) => void
  fault: string | undefined
}

/** mostSeats is the limit of the API for the seats of one closure. */
const mostSeats = 500

function SeatPicker({ seats, chosen, onChange, fault }: SeatPickerProps): JSX.Element {
  const text = ts().hours
  const search = useSignal('')
  const wanted = search.value.trim().toLowerCase()
  const found = seats.filter(
    (s) => s.label.toLowerCase().includes(wanted) || s.area.toLowerCase().includes(wanted),
  )
  const areas = [...new Set(found.map((s) => s.area))].sort()
  return (
    <div class="seat-picker">
      <Field label={text.searchSeats} hint={text.chosenSeats(chosen.size)} fault={fault}>
        {(a) => (
          <input
            {...a}
            type="search"
            value={search.value}
            onInput={(e) => (search.value = e.currentTarget.value)}
          />
        )}
      </Field>
      <div class="seat-choices" tabIndex={0} role="group" aria-label={text.someSeats}>
        {areas.map((area) => (
          <div key={area} role="group" aria-label={area}>
            <h3>{area}</h3>
            <div class="chips">
              {found
                .filter((s) => s.area === area)
                .map((s) => (
                  <button
                    key={s.id}
                    type="button"
                    class="chip"
                    aria-pressed={chosen.has(s.id)}
                    disabled={!chosen.has(s.id) && chosen.size >= mostSeats}
                    onClick={() => {
                      const next = new Set(chosen)
                      if (!next.delete(s.id)) next.add(s.id)
                      onChange(next)
                    }}
                  >
                    {s.label}
                  </button>
                ))}
            </div>
          </div>
        ))}
      </div>
    </div>
  )
}
