import { useSignal } from '@preact/signals'
import { useEffect, useId } from 'preact/hooks'
import type { ComponentChildren, JSX } from 'preact'
import type { Schema } from '../api/client.ts'
import { t, ts } from '../i18n/text.ts'
import { clock, day, number } from '../i18n/time.ts'
import { Button, useAction } from './action.tsx'
import { Dialog } from './dialog.tsx'
import { Field } from './field.tsx'
import { filled, NoteFields, type Note } from './note.tsx'
import { Fault } from './problem.tsx'

export type Impact = Schema<'Impact'>

/** Action says what a change does with the reservations that it makes impossible. */
export type Action = 'BOOKING_ACTION_KEEP' | 'BOOKING_ACTION_CANCEL'

/** Change has the fields that every call with an impact shares. */
export interface Change {
  validateOnly: boolean
  onBookings: Action
  expectedReservations: number
  note: Record<string, string>
  reason: string
}

/** ImpactView shows the effect of a change on users: its reservations by day, and the first of them. */
export function ImpactView({ impact, zone }: { impact: Impact; zone: string }): JSX.Element {
  const text = ts().admin.impact
  const all = useSignal(false)
  const shown = all.value ? impact.first : impact.first.slice(0, 5)
  return (
    <section class="impact" aria-label={text.title}>
      <p class={impact.reservations > 0 ? 'impact-sum some' : 'impact-sum'}>
        <strong>{text.reservations(impact.reservations)}</strong>
        {impact.checkedIn > 0 && <span> {text.checkedIn(impact.checkedIn)}</span>}
        {impact.waitlistEntries > 0 && <span> {text.waitlist(impact.waitlistEntries)}</span>}
      </p>
      {impact.days.length > 1 && (
        <ul class="impact-days">
          {impact.days.map((d) => (
            <li key={d.day}>
              {day(d.day + 'T12:00:00Z', 'UTC')}: <b>{number(d.reservations)}</b>
            </li>
          ))}
        </ul>
      )}
      {shown.length > 0 && (
        <div class="scroll" tabIndex={0} role="group" aria-label={text.affected}>
          <table>
            <thead>
              <tr>
                <th scope="col">{text.person}</th>
                <th scope="col">{text.seat}</th>
                <th scope="col">{text.time}</th>
              </tr>
            </thead>
            <tbody>
              {shown.map((a) => (
                <Affected key={a.reservation?.id} one={a} zone={zone} />
              ))}
            </tbody>
          </table>
        </div>
      )}
      {!all.value && impact.first.length > shown.length && (
        <Button onClick={() => (all.value = true)}>{text.showFirst(impact.first.length)}</Button>
      )}
      {all.value && impact.reservations > impact.first.length && (
        <p>
          <small>{text.notShown(impact.reservations - impact.first.length)}</small>
        </p>
      )}
    </section>
  )
}

function Affected({ one, zone }: { one: Schema<'AffectedReservation'>; zone: string }): JSX.Element {
  const r = one.reservation
  return (
    <tr>
      <td>
        {one.name}
        <br />
        <small>{one.studentId}</small>
      </td>
      <td>{r?.seat?.label}</td>
      <td>
        {r?.startTime !== undefined && r.endTime !== undefined && (
          <>
            {day(r.startTime, zone)}, {clock(r.startTime, zone)}–{clock(r.endTime, zone)}
          </>
        )}
        {r?.status === 'RESERVATION_STATUS_CHECKED_IN' && (
          <>
            <br />
            <span class="tag mine">{t().common.status[r.status]}</span>
          </>
        )}
      </td>
    </tr>
  )
}

/** ActionChoice lets staff keep or cancel the reservations that a change makes impossible. */
export function ActionChoice({
  value,
  onChange,
}: {
  value: Action
  onChange: (a: Action) => void
}): JSX.Element {
  const name = useId()
  const text = ts().admin.impact
  const choices: [Action, string, string][] = [
    ['BOOKING_ACTION_KEEP', text.keep, text.keepHint],
    ['BOOKING_ACTION_CANCEL', text.cancel, text.cancelHint],
  ]
  return (
    <fieldset>
      <legend>{text.action}</legend>
      {choices.map(([action, label, hint]) => (
        <label class="choice" key={action}>
          <input type="radio" name={name} checked={value === action} onChange={() => onChange(action)} />
          <span>
            {label}
            <br />
            <small>{hint}</small>
          </span>
        </label>
      ))}
    </fieldset>
  )
}

/** ReasonField is the reason of a change, for the audit log. */
export function ReasonField({
  value,
  onChange,
}: {
  value: string
  onChange: (reason: string) => void
}): JSX.Element {
  return (
    <Field label={ts().admin.impact.reason} hint={ts().admin.impact.reasonHint} optional>
      {(a) => <input {...a} maxLength={500} value={value} onInput={(e) => onChange(e.currentTarget.value)} />}
    </Field>
  )
}

interface ImpactDialogProps {
  title: string
  zone: string
  /** send makes the call with the fields of the change, and returns the impact of the answer. */
  send: (change: Change) => Promise<Impact | undefined>
  /** confirm is the name of the button that makes the change. */
  confirm: string
  /** action: "choose" lets staff choose; otherwise the call has no choice. Default: "choose". */
  action?: 'choose' | Action
  /** initial is the choice at first. Default: keep. */
  initial?: Action
  /** ownNote: the form before this dialog has asked for the note, or the change has none. */
  ownNote?: boolean
  /** withoutImpact: the change takes nothing away, so no impact is shown. */
  withoutImpact?: boolean
  onDone: () => void
  onClose: () => void
  /** children are shown above the impact, such as what the change does. */
  children?: ComponentChildren
}

/**
 * ImpactDialog makes a change in two steps: it shows the impact of the change, and the button makes
 * it. If reservations were made or cancelled in between, it shows the new impact and asks again.
 */
export function ImpactDialog(props: ImpactDialogProps): JSX.Element {
  const text = ts().admin.impact
  const choose = props.action ?? 'choose'
  const preview = useAction()
  const change = useAction()
  const impact = useSignal<Impact | undefined>(undefined)
  const action = useSignal<Action>(choose === 'choose' ? (props.initial ?? 'BOOKING_ACTION_KEEP') : choose)
  const note = useSignal<Note>({})
  const reason = useSignal('')

  const fields = (validateOnly: boolean): Change => ({
    validateOnly,
    onBookings: action.value,
    expectedReservations:
      validateOnly || action.value === 'BOOKING_ACTION_KEEP' ? 0 : (impact.value?.reservations ?? 0),
    note: filled(note.value),
    reason: reason.value.trim(),
  })
  const look = (): Promise<boolean> =>
    preview.run(async () => {
      impact.value = (await props.send(fields(true))) ?? none
    })
  useEffect(() => {
    void look()
  }, [])

  async function make(): Promise<void> {
    if (await change.run(async () => void (await props.send(fields(false))))) {
      props.onDone()
      return
    }
    if (change.problem.value?.reason === 'CHANGED_SINCE_CHECK') await look()
  }

  const affected = impact.value?.reservations ?? 0
  const cancels = affected > 0 && action.value === 'BOOKING_ACTION_CANCEL'
  return (
    <Dialog title={props.title} onClose={props.onClose}>
      {props.children}
      {preview.busy.value && impact.value === undefined && (
        <p class="loading" role="status">
          {text.loading}
        </p>
      )}
      <Fault problem={preview.problem.value} zone={props.zone} />
      {impact.value !== undefined && (
        <form
          class="impact-form"
          onSubmit={(e) => {
            e.preventDefault()
            void make()
          }}
        >
          {props.withoutImpact !== true && <ImpactView impact={impact.value} zone={props.zone} />}
          {affected > 0 && choose === 'choose' && (
            <ActionChoice value={action.value} onChange={(a) => (action.value = a)} />
          )}
          {cancels && props.ownNote !== true && (
            <NoteFields
              legend={ts().admin.note.legend}
              value={note.value}
              onChange={(n) => (note.value = n)}
            />
          )}
          <ReasonField value={reason.value} onChange={(r) => (reason.value = r)} />
          <Fault problem={change.problem.value} zone={props.zone} />
          <div class="row end">
            <Button onClick={props.onClose}>{t().common.cancel}</Button>
            <Button
              type="submit"
              kind={cancels ? 'danger' : 'main'}
              busy={change.busy.value || preview.busy.value}
            >
              {cancels ? text.confirmCancel(props.confirm, affected) : props.confirm}
            </Button>
          </div>
        </form>
      )}
      {impact.value === undefined && preview.problem.value !== undefined && (
        <div class="row end">
          <Button onClick={props.onClose}>{t().common.back}</Button>
        </div>
      )}
    </Dialog>
  )
}

const none: Impact = { reservations: 0, checkedIn: 0, waitlistEntries: 0, days: [], first: [] }
