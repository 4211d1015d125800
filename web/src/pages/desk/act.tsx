import { useSignal } from '@preact/signals'
import type { ComponentChildren, JSX } from 'preact'
import type { Schema } from '../../api/client.ts'
import type { Problem } from '../../api/problem.ts'
import { t, ts } from '../../i18n/text.ts'
import { clock, dayAndClock } from '../../i18n/time.ts'
import { zoneOf } from '../../state/branches.ts'
import { useAction } from '../../ui/action.tsx'
import { FormDialog } from '../../ui/form-dialog.tsx'
import { Field, faultOf } from '../../ui/field.tsx'
import { Fault } from '../../ui/problem.tsx'

/** DeskFault is Fault with the texts for staff: "the person", and not "you". */
export function DeskFault({
  problem,
  zone,
}: {
  problem: Problem | undefined
  zone?: string
}): JSX.Element | null {
  if (problem === undefined) return null
  const text = (ts().desk.errors as Readonly<Record<string, string>>)[problem.reason]
  if (text === undefined)
    return zone === undefined ? <Fault problem={problem} /> : <Fault problem={problem} zone={zone} />
  return (
    <div class="fault" role="alert">
      <p>{text}</p>
    </div>
  )
}

/** spanOf returns the window of a reservation, such as "10:00 to 12:00" today. */
export function spanOf(r: { startTime?: string; endTime?: string; seat?: { branch: string } }): string {
  const zone = zoneOf(r.seat?.branch)
  return t().common.span(
    dayAndClock(r.startTime ?? '', zone),
    endOf(r.startTime ?? '', r.endTime ?? '', zone),
  )
}

/** endOf returns the end of a window: the time of day, with its date if it is on another day than the start. */
export function endOf(start: string, end: string, zone: string): string {
  const sameDay = Date.parse(end) - Date.parse(start) < 86_400_000 && clock(end, zone) > clock(start, zone)
  return sameDay ? clock(end, zone) : dayAndClock(end, zone)
}

/** seatLabel returns the label of the seat of a reservation. */
export function seatLabel(r: Schema<'Reservation'>): string {
  return r.seat?.label ?? ''
}

interface ReasonFieldProps {
  value: { value: string }
  problem: Problem | undefined
  seen: boolean
}

/** ReasonField asks for the reason of a change. seen: the person sees it. */
export function ReasonField({ value, problem, seen }: ReasonFieldProps): JSX.Element {
  const text = ts().desk
  return (
    <Field
      label={text.reason}
      hint={seen ? text.reasonSeen : text.reasonAudit}
      fault={faultOf(problem, 'reason')}
    >
      {(attributes) => (
        <input
          {...attributes}
          required
          maxLength={500}
          autocomplete="off"
          value={value.value}
          onInput={(e) => {
            value.value = e.currentTarget.value
          }}
        />
      )}
    </Field>
  )
}

interface ActProps {
  title: string
  /** The effect of the change. */
  text?: string | undefined
  confirm: string
  danger?: boolean
  /** The reason to start with. */
  reason?: string
  /** Whether the person sees the reason. */
  seen?: boolean
  zone?: string
  disabled?: boolean
  /** More fields, above the reason. */
  children?: ComponentChildren
  run: (reason: string) => Promise<void>
  onClose: () => void
}

/** Act is a dialog for a change of staff, with its reason. It closes when the change is made. */
export function Act({
  title,
  text,
  confirm,
  danger = false,
  reason = '',
  seen = false,
  zone,
  disabled = false,
  children,
  run,
  onClose,
}: ActProps): JSX.Element {
  const why = useSignal(reason)
  const action = useAction()
  const problem = action.problem.value
  return (
    <FormDialog
      title={title}
      submit={confirm}
      kind={danger ? 'danger' : 'main'}
      busy={action.busy.value}
      disabled={disabled}
      onSubmit={() => {
        void action
          .run(() => run(why.value.trim()))
          .then((done) => {
            if (done) onClose()
          })
      }}
      onClose={onClose}
    >
      {text !== undefined && <p>{text}</p>}
      {children}
      <ReasonField value={why} problem={problem} seen={seen} />
      <DeskFault problem={problem} {...(zone === undefined ? {} : { zone })} />
    </FormDialog>
  )
}
