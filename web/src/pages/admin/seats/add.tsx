import { useSignal } from '@preact/signals'
import { useId } from 'preact/hooks'
import type { JSX } from 'preact'
import { Problem } from '../../../api/problem.ts'
import { t, ts } from '../../../i18n/text.ts'
import { useAction } from '../../../ui/action.tsx'
import { FormDialog } from '../../../ui/form-dialog.tsx'
import { Field } from '../../../ui/field.tsx'
import { ReasonField } from '../../../ui/impact.tsx'
import { notify } from '../../../ui/notice.tsx'
import { Fault } from '../../../ui/problem.tsx'
import { branch } from '../branch.ts'
import { amenities, changeSeats, labelsFrom, seatFile, type Amenity, type SeatRow } from './data.ts'

interface AddDialogProps {
  areas: readonly string[]
  onDone: () => void
  onClose: () => void
}

/** AddDialog adds one seat, or many with labels that count on. */
export function AddDialog({ areas, onDone, onClose }: AddDialogProps): JSX.Element {
  const text = ts().seats.edit
  const list = useId()
  const action = useAction()
  const area = useSignal('')
  const first = useSignal('')
  const n = useSignal(1)
  const desk = useSignal('')
  const has = useSignal<ReadonlySet<Amenity>>(new Set())
  const out = useSignal(false)
  const reason = useSignal('')
  const existing = useSignal<readonly string[]>([])
  const code = branch.value?.code ?? ''
  const count = Number.isInteger(n.value) && n.value >= 1 && n.value <= 1000 ? n.value : 0
  const labels = labelsFrom(first.value.trim(), count)

  async function add(): Promise<void> {
    existing.value = []
    const rows = labels.map((label): SeatRow => ({
      id: '',
      label,
      area: area.value.trim(),
      amenities: [...has.value],
      x: undefined,
      y: undefined,
      angle: undefined,
      desk: desk.value.trim(),
      outOfService: out.value,
    }))
    const file = seatFile(code, rows, ['area', 'amenities', 'desk', 'out_of_service'])
    const options = { reason: reason.value.trim() }
    const ok = await action.run(async () => {
      await changeSeats(file, options, (answer) => {
        existing.value = answer.changes.filter((c) => c.action !== 'CREATE').map((c) => c.label)
        if (existing.value.length > 0) throw new Problem(409, 'LABELS_EXIST', '', {}, [], '')
      })
    })
    if (!ok) return
    notify(text.added(labels.length))
    onDone()
  }

  return (
    <FormDialog
      title={text.addTitle}
      submit={text.addButton(Math.max(1, count))}
      busy={action.busy.value}
      onSubmit={() => void add()}
      onClose={onClose}
    >
      <Field label={text.area} hint={text.areaHint}>
        {(a) => (
          <input
            {...a}
            required
            maxLength={100}
            list={list}
            value={area.value}
            onInput={(e) => (area.value = e.currentTarget.value)}
          />
        )}
      </Field>
      <datalist id={list}>
        {areas.map((name) => (
          <option key={name} value={name} />
        ))}
      </datalist>
      <div class="form-pair">
        <Field label={text.firstLabel} hint={text.firstLabelHint}>
          {(a) => (
            <input
              {...a}
              required
              maxLength={100}
              value={first.value}
              onInput={(e) => (first.value = e.currentTarget.value)}
            />
          )}
        </Field>
        <Field label={text.number}>
          {(a) => (
            <input
              {...a}
              type="number"
              required
              min={1}
              max={1000}
              value={n.value}
              onInput={(e) => (n.value = e.currentTarget.valueAsNumber)}
            />
          )}
        </Field>
      </div>
      {first.value.trim() !== '' && count > 0 && (
        <p aria-live="polite">{text.will(labels.length, labels[0] ?? '', labels.at(-1) ?? '')}</p>
      )}
      <Amenities has={has.value} onChange={(next) => (has.value = next)} />
      <Field label={text.desk} hint={text.deskHint} optional>
        {(a) => (
          <input
            {...a}
            maxLength={50}
            value={desk.value}
            onInput={(e) => (desk.value = e.currentTarget.value)}
          />
        )}
      </Field>
      <label class="choice">
        <input type="checkbox" checked={out.value} onChange={(e) => (out.value = e.currentTarget.checked)} />
        {text.outOfService}
      </label>
      <ReasonField value={reason.value} onChange={(r) => (reason.value = r)} />
      {existing.value.length > 0 ? (
        <div class="fault" role="alert">
          <p>{text.exist(existing.value.slice(0, 20).join(', '))}</p>
        </div>
      ) : (
        <Fault problem={action.problem.value} />
      )}
    </FormDialog>
  )
}

interface AmenitiesProps {
  has: ReadonlySet<Amenity>
  /** Amenities that only some of the seats have. */
  mixed?: ReadonlySet<Amenity>
  onChange: (has: ReadonlySet<Amenity>, changed: Amenity) => void
}

/** Amenities are the amenities of one or several seats. */
export function Amenities({ has, mixed, onChange }: AmenitiesProps): JSX.Element {
  return (
    <fieldset class="amenities">
      <legend>{ts().seats.list.amenities}</legend>
      {amenities.map((a) => (
        <label class="choice" key={a}>
          <input
            type="checkbox"
            checked={has.has(a)}
            ref={(input) => {
              if (input !== null) input.indeterminate = mixed?.has(a) ?? false
            }}
            onChange={(e) => {
              const next = new Set(has)
              if (e.currentTarget.checked) next.add(a)
              else next.delete(a)
              onChange(next, a)
            }}
          />
          {t().common.amenity[a]}
        </label>
      ))}
    </fieldset>
  )
}
