import { useSignal } from '@preact/signals'
import type { JSX } from 'preact'
import { api, call, type Schema } from '../../api/client.ts'
import { ts } from '../../i18n/text.ts'
import { dateOf, instant } from '../../i18n/time.ts'
import { serverNow } from '../../state/clock.ts'
import { useAction } from '../../ui/action.tsx'
import { FormDialog } from '../../ui/form-dialog.tsx'
import { Field, faultOf } from '../../ui/field.tsx'
import { notify } from '../../ui/notice.tsx'
import { DeskFault, ReasonField } from './act.tsx'

interface Props {
  branch: Schema<'Branch'>
  onClose: () => void
}

/** ForgiveSpan forgives all strikes of a branch in a span. It shows their number first. */
export function ForgiveSpan({ branch, onClose }: Props): JSX.Element {
  const text = ts().desk
  const zone = branch.timezone
  const day = useSignal(dateOf(serverNow(), zone))
  const from = useSignal('00:00')
  const lastDay = useSignal(day.value)
  const to = useSignal('23:59')
  const reason = useSignal('')
  const seen = useSignal<{ strikes: number; suspensions: number } | undefined>(undefined)
  const action = useAction()
  const problem = action.problem.value

  async function send(validateOnly: boolean): Promise<Schema<'ForgiveStrikesResponse'>> {
    const body = {
      branch: branch.code,
      startTime: instant(day.value, from.value, zone).toISOString(),
      // The end is exclusive, and 23:59 means the end of the day.
      endTime: new Date(instant(lastDay.value, to.value, zone).getTime() + 60_000).toISOString(),
      reason: reason.value.trim(),
      validateOnly,
    }
    return call(api.POST('/v1/desk/strikes:forgive', { body }))
  }
  const change = (): void => {
    seen.value = undefined
  }
  return (
    <FormDialog
      title={text.forgiveSpan}
      submit={seen.value === undefined ? text.preview : text.forgive}
      busy={action.busy.value}
      disabled={seen.value?.strikes === 0}
      onSubmit={() => {
        void action.run(async () => {
          if (seen.value === undefined) {
            const { forgiven, lifted } = await send(true)
            seen.value = { strikes: forgiven, suspensions: lifted }
            return
          }
          const { forgiven } = await send(false)
          notify(text.forgaveSpan(forgiven))
          onClose()
        })
      }}
      onClose={onClose}
    >
      <p>{text.forgiveSpanText}</p>
      <DayAndTime
        label={text.spanStart}
        day={day}
        time={from}
        fault={faultOf(problem, 'startTime')}
        onChange={change}
      />
      <DayAndTime
        label={text.spanEnd}
        day={lastDay}
        time={to}
        fault={faultOf(problem, 'endTime')}
        onChange={change}
      />
      <ReasonField value={reason} problem={problem} seen={false} />
      <DeskFault problem={problem} zone={zone} />
      <p role="status">
        {seen.value !== undefined &&
          (seen.value.strikes === 0
            ? text.forgiveNothing
            : text.forgivePreview(seen.value.strikes, seen.value.suspensions))}
      </p>
    </FormDialog>
  )
}

interface DayAndTimeProps {
  label: string
  day: { value: string }
  time: { value: string }
  fault: string | undefined
  onChange: () => void
}

function DayAndTime({ label, day, time, fault, onChange }: DayAndTimeProps): JSX.Element {
  const text = ts().desk
  const input = (kind: 'date' | 'time', name: string, at: { value: string }): JSX.Element => (
    <input
      type={kind}
      required
      aria-label={`${label}: ${name}`}
      value={at.value}
      onInput={(e) => {
        at.value = e.currentTarget.value
        onChange()
      }}
    />
  )
  return (
    <fieldset>
      <legend>{label}</legend>
      <div class="row">
        {input('date', text.date, day)}
        {input('time', text.time, time)}
      </div>
      {fault !== undefined && <small class="field-fault">{fault}</small>}
    </fieldset>
  )
}

/** SuspendFields asks for the last day of a suspension. */
export function SuspendFields({ day, first }: { day: { value: string }; first: string }): JSX.Element {
  return (
    <Field label={ts().desk.lastDay}>
      {(attributes) => (
        <input
          {...attributes}
          type="date"
          required
          min={first}
          value={day.value}
          onInput={(e) => {
            day.value = e.currentTarget.value
          }}
        />
      )}
    </Field>
  )
}
