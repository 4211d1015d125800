import { useSignal } from '@preact/signals'
import { useId } from 'preact/hooks'
import type { JSX } from 'preact'
import { api, call, type Schema } from '../../../api/client.ts'
import { ts } from '../../../i18n/text.ts'
import { addDays, dateOf, weekdayName, weekdayOf } from '../../../i18n/time.ts'
import { serverNow } from '../../../state/clock.ts'
import { Button } from '../../../ui/action.tsx'
import { Field } from '../../../ui/field.tsx'
import { ImpactDialog } from '../../../ui/impact.tsx'
import { notify } from '../../../ui/notice.tsx'
import { loadBranches } from '../branch.ts'
import { dateText } from '../parts.tsx'
import { Calendar, chosenText, type Range } from './calendar.tsx'
import { apiSpan, complete, formSpan, SpanList, spansText, type Span } from './spans.tsx'

type Mode = 'closed' | 'other' | 'remove'

interface Order extends Range {
  mode: Mode
  weekdays: number[]
  spans: Span[]
}

/** Days edits the dates with their own hours, such as holidays and exam weeks. */
export function Days({ branch }: { branch: Schema<'BranchSettings'> }): JSX.Element {
  const text = ts().hours
  const today = dateOf(serverNow(), branch.timezone)
  const range = useSignal<Range>({ from: today, to: today })
  const focus = useSignal(today)
  const weekdays = useSignal([1, 2, 3, 4, 5, 6, 7])
  const mode = useSignal<Mode>('closed')
  const spans = useSignal<Span[]>([{ opens: '08:00', closes: '22:00' }])
  const fault = useSignal('')
  const sending = useSignal<Order | undefined>(undefined)
  const several = range.value.from !== range.value.to

  function select(r: Range): void {
    range.value = r
    const own = branch.days.find((d) => d.day === r.from)
    if (own === undefined || own.open.length === 0) return
    mode.value = 'other'
    spans.value = own.open.map(formSpan)
  }

  function check(): void {
    const { from, to } = range.value
    fault.value = ''
    const days = dates(range.value).filter((d) => weekdays.value.includes(weekdayOf(d)))
    const timesMissing = mode.value === 'other' && (spans.value.length === 0 || !complete(spans.value))
    if (from === '' || to === '' || to < from || from < today) fault.value = text.badRange
    else if (days.length === 0) fault.value = text.noDays
    else if (timesMissing) fault.value = text.incomplete
    else sending.value = { ...range.value, mode: mode.value, weekdays: weekdays.value, spans: spans.value }
  }

  return (
    <section class="card" aria-labelledby="days-title">
      <h2 id="days-title">{text.days}</h2>
      <p>
        <small>{text.daysHint}</small>
      </p>
      <div class="days">
        <Calendar
          exceptions={branch.days}
          today={today}
          selected={range.value}
          focus={focus.value}
          onMove={(d) => (focus.value = d)}
          onSelect={select}
        />
        <form
          noValidate
          onSubmit={(e) => {
            e.preventDefault()
            check()
          }}
        >
          <div class="row">
            <Field label={text.firstDay}>
              {(a) => (
                <input
                  {...a}
                  type="date"
                  min={today}
                  value={range.value.from}
                  onInput={(e) => {
                    const from = e.currentTarget.value
                    range.value = { from, to: range.value.to < from ? from : range.value.to }
                    if (from !== '') focus.value = from
                  }}
                />
              )}
            </Field>
            <Field label={text.lastDay}>
              {(a) => (
                <input
                  {...a}
                  type="date"
                  min={range.value.from}
                  value={range.value.to}
                  onInput={(e) => (range.value = { ...range.value, to: e.currentTarget.value })}
                />
              )}
            </Field>
          </div>
          {several && (
            <fieldset>
              <legend>{text.weekdays}</legend>
              <div class="chips">
                {[1, 2, 3, 4, 5, 6, 7].map((d) => (
                  <button
                    key={d}
                    type="button"
                    class="chip"
                    aria-pressed={weekdays.value.includes(d)}
                    aria-label={weekdayName(d)}
                    onClick={() => {
                      const on = weekdays.value.includes(d)
                      weekdays.value = on
                        ? weekdays.value.filter((w) => w !== d)
                        : [...weekdays.value, d].sort()
                    }}
                  >
                    {weekdayName(d, 'short')}
                  </button>
                ))}
              </div>
            </fieldset>
          )}
          <ModeChoice value={mode.value} onChange={(m) => (mode.value = m)} />
          {mode.value === 'other' && (
            <SpanList of={text.theseDays} spans={spans.value} onChange={(s) => (spans.value = s)} />
          )}
          {fault.value !== '' && (
            <p class="fault" role="alert">
              {fault.value}
            </p>
          )}
          <div class="row end">
            <Button type="submit" kind="main">
              {text.preview}
            </Button>
          </div>
        </form>
      </div>
      <Exceptions
        days={branch.days}
        onRemove={(r) => (sending.value = { ...r, mode: 'remove', weekdays: [], spans: [] })}
        onEdit={(r) => {
          focus.value = r.from
          select(r)
          document.getElementById('days-title')?.scrollIntoView()
        }}
      />
      {sending.value !== undefined && (
        <DaysDialog branch={branch} order={sending.value} onClose={() => (sending.value = undefined)} />
      )}
    </section>
  )
}

function ModeChoice({ value, onChange }: { value: Mode; onChange: (m: Mode) => void }): JSX.Element {
  const text = ts().hours
  const name = useId()
  const modes: [Mode, string][] = [
    ['closed', text.closed],
    ['other', text.otherHours],
    ['remove', text.weekly],
  ]
  return (
    <fieldset>
      <legend>{text.onTheseDays}</legend>
      {modes.map(([m, label]) => (
        <label class="choice" key={m}>
          <input type="radio" name={name} checked={value === m} onChange={() => onChange(m)} />
          {label}
        </label>
      ))}
    </fieldset>
  )
}

interface DaysDialogProps {
  branch: Schema<'BranchSettings'>
  order: Order
  onClose: () => void
}

function DaysDialog({ branch, order, onClose }: DaysDialogProps): JSX.Element {
  const text = ts().hours
  const open = order.mode === 'other' ? order.spans.map(apiSpan) : []
  const limited = order.weekdays.length > 0 && order.weekdays.length < 7 && order.from !== order.to
  return (
    <ImpactDialog
      title={text.daysTitle(branch.name)}
      zone={branch.timezone}
      confirm={text.saveHours}
      send={async (change) => {
        const { impact } = await call(
          api.POST('/v1/admin/branches/{branch}/days', {
            params: { path: { branch: branch.code } },
            body: {
              firstDay: order.from,
              lastDay: order.to,
              ...(limited ? { weekdays: order.weekdays } : {}),
              ...(order.mode === 'remove' ? { remove: true } : { open }),
              ...change,
            },
          }),
        )
        return impact
      }}
      onClose={onClose}
      onDone={() => {
        onClose()
        notify(text.saved)
        void loadBranches()
      }}
    >
      <p>
        <strong>{chosenText(order)}</strong>
        {limited && ` (${order.weekdays.map((d) => weekdayName(d, 'short')).join(', ')})`}
        <br />
        {order.mode === 'remove' ? text.weekly : spansText(open)}
      </p>
    </ImpactDialog>
  )
}

/** dates returns the dates of a range. */
function dates({ from, to }: Range): string[] {
  const all: string[] = []
  for (let d = from; d <= to && all.length <= 366; d = addDays(d, 1)) all.push(d)
  return all
}

interface ExceptionsProps {
  days: readonly Schema<'DayHours'>[]
  onRemove: (r: Range) => void
  onEdit: (r: Range) => void
}

/** Exceptions lists the dates with their own hours; neighbours with the same hours are one row. */
function Exceptions({ days, onRemove, onEdit }: ExceptionsProps): JSX.Element {
  const text = ts().hours
  const rows: (Range & { open: string })[] = []
  for (const d of days) {
    const open = spansText(d.open)
    const last = rows.at(-1)
    if (last !== undefined && last.open === open && addDays(last.to, 1) === d.day) last.to = d.day
    else rows.push({ from: d.day, to: d.day, open })
  }
  if (rows.length === 0)
    return (
      <p>
        <small>{text.noExceptions}</small>
      </p>
    )
  return (
    <div class="scroll" tabIndex={0} role="group" aria-label={text.exceptions}>
      <table>
        <caption class="visually-hidden">{text.exceptions}</caption>
        <tbody>
          {rows.map((r) => {
            const name = r.from === r.to ? dateText(r.from) : `${dateText(r.from)} – ${dateText(r.to)}`
            return (
              <tr key={r.from}>
                <th scope="row">{name}</th>
                <td>{r.open}</td>
                <td class="row-actions">
                  <Button label={`${text.change}: ${name}`} onClick={() => onEdit(r)}>
                    {text.change}
                  </Button>
                  <Button label={`${text.remove}: ${name}`} onClick={() => onRemove(r)}>
                    {text.remove}
                  </Button>
                </td>
              </tr>
            )
          })}
        </tbody>
      </table>
    </div>
  )
}
