import { useSignal } from '@preact/signals'
import { useId } from 'preact/hooks'
import type { JSX } from 'preact'
import { t, ts } from '../../../i18n/text.ts'
import { useAction } from '../../../ui/action.tsx'
import { FormDialog } from '../../../ui/form-dialog.tsx'
import { Field } from '../../../ui/field.tsx'
import { ImpactDialog, ReasonField, type Change, type Impact } from '../../../ui/impact.tsx'
import { notify } from '../../../ui/notice.tsx'
import { Fault } from '../../../ui/problem.tsx'
import { branch } from '../branch.ts'
import { Amenities } from './add.tsx'
import {
  amenities,
  changedSinceCheck,
  changeSeats,
  importFile,
  seatFile,
  type Amenity,
  type Column,
  type SeatRow,
} from './data.ts'

interface EditDialogProps {
  rows: readonly SeatRow[]
  areas: readonly string[]
  onDone: () => void
  onClose: () => void
}

/** EditDialog changes one seat or several at once. A value that the user does not touch stays as it is. */
export function EditDialog({ rows, areas, onDone, onClose }: EditDialogProps): JSX.Element {
  const text = ts().seats.edit
  const list = useId()
  const action = useAction()
  const same = <T,>(value: (r: SeatRow) => T): T | undefined => {
    const [first] = rows
    return first !== undefined && rows.every((r) => value(r) === value(first)) ? value(first) : undefined
  }
  // undefined: the seats differ, and the user has not chosen a value.
  const area = useSignal(same((r) => r.area))
  const desk = useSignal(same((r) => r.desk))
  const out = useSignal(same((r) => r.outOfService))
  const has = useSignal<ReadonlySet<Amenity>>(
    new Set(amenities.filter((a) => rows.every((r) => r.amenities.includes(a)))),
  )
  const mixed = useSignal<ReadonlySet<Amenity>>(
    new Set(amenities.filter((a) => same((r) => r.amenities.includes(a)) === undefined)),
  )
  const reason = useSignal('')
  const confirming = useSignal(false)

  const next = rows.map((r): SeatRow => ({
    ...r,
    area: area.value?.trim() ?? r.area,
    desk: desk.value?.trim() ?? r.desk,
    outOfService: out.value ?? r.outOfService,
    amenities: amenities.filter((a) => (mixed.value.has(a) ? r.amenities.includes(a) : has.value.has(a))),
  }))
  const changes = (field: (a: SeatRow, b: SeatRow) => boolean): boolean =>
    rows.some((r, i) => field(r, next[i] ?? r))
  const fields: Column[] = []
  if (changes((a, b) => a.area !== b.area)) fields.push('area')
  if (changes((a, b) => a.desk !== b.desk)) fields.push('desk')
  if (changes((a, b) => a.outOfService !== b.outOfService)) fields.push('out_of_service')
  if (changes((a, b) => [...a.amenities].sort().join() !== [...b.amenities].sort().join()))
    fields.push('amenities')
  const closes = changes((a, b) => b.outOfService && !a.outOfService)
  const file = seatFile(branch.value?.code ?? '', next, fields)
  const done = (): void => {
    notify(text.changed(rows.length))
    onDone()
  }

  async function save(): Promise<void> {
    if (fields.length === 0) onClose()
    else if (closes) confirming.value = true
    else if (await action.run(async () => void (await changeSeats(file, { reason: reason.value.trim() }))))
      done()
  }

  if (confirming.value) return <OutOfService file={file} rows={rows} onDone={done} onClose={onClose} />
  const one = rows.length === 1 ? rows[0] : undefined
  return (
    <FormDialog
      title={one === undefined ? text.editMany(rows.length) : text.editOne(one.label)}
      submit={closes ? text.next : t().common.save}
      busy={action.busy.value}
      onSubmit={() => void save()}
      onClose={onClose}
    >
      {one === undefined && (
        <p>
          <small>{text.manyHint}</small>
        </p>
      )}
      <Field label={text.area} hint={text.areaHint}>
        {(a) => (
          <input
            {...a}
            required={area.value !== undefined}
            maxLength={100}
            list={list}
            placeholder={area.value === undefined ? text.different : undefined}
            value={area.value ?? ''}
            onInput={(e) => (area.value = e.currentTarget.value)}
          />
        )}
      </Field>
      <datalist id={list}>
        {areas.map((name) => (
          <option key={name} value={name} />
        ))}
      </datalist>
      <Field label={text.desk} hint={text.deskHint} optional>
        {(a) => (
          <input
            {...a}
            maxLength={50}
            placeholder={desk.value === undefined ? text.different : undefined}
            value={desk.value ?? ''}
            onInput={(e) => (desk.value = e.currentTarget.value)}
          />
        )}
      </Field>
      <Amenities
        has={has.value}
        mixed={mixed.value}
        onChange={(all, changed) => {
          has.value = all
          mixed.value = new Set([...mixed.value].filter((a) => a !== changed))
        }}
      />
      <label class="choice">
        <input
          type="checkbox"
          checked={out.value ?? false}
          ref={(input) => {
            if (input !== null) input.indeterminate = out.value === undefined
          }}
          onChange={(e) => (out.value = e.currentTarget.checked)}
        />
        {text.outOfService}
      </label>
      {one !== undefined && (
        <p>
          <small>{text.labelStays}</small>
        </p>
      )}
      {!closes && <ReasonField value={reason.value} onChange={(r) => (reason.value = r)} />}
      <Fault problem={action.problem.value} />
    </FormDialog>
  )
}

interface OutOfServiceProps {
  file: string
  rows: readonly SeatRow[]
  onDone: () => void
  onClose: () => void
}

/** OutOfService shows the reservations of seats that go out of service, before the change. */
function OutOfService({ file, rows, onDone, onClose }: OutOfServiceProps): JSX.Element {
  const text = ts().seats.edit
  const previewed = useSignal(0)

  async function send({ validateOnly, onBookings, note, reason }: Change): Promise<Impact | undefined> {
    const options = { onBookings, note, reason }
    if (validateOnly) {
      const { impact } = await importFile(file, options)
      previewed.value = impact?.reservations ?? 0
      return impact
    }
    const answer = await changeSeats(file, options, ({ impact }) => {
      if (onBookings === 'BOOKING_ACTION_CANCEL' && impact?.reservations !== previewed.value)
        throw changedSinceCheck()
    })
    return answer.impact
  }

  return (
    <ImpactDialog
      title={text.outTitle(rows.length)}
      zone={branch.value?.timezone ?? 'UTC'}
      send={send}
      confirm={t().common.save}
      onDone={onDone}
      onClose={onClose}
    >
      <p>
        {text.outText(
          rows
            .slice(0, 20)
            .map((r) => r.label)
            .join(', '),
        )}
      </p>
    </ImpactDialog>
  )
}
