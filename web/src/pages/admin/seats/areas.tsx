import { useSignal } from '@preact/signals'
import type { JSX } from 'preact'
import { api, call } from '../../../api/client.ts'
import { t, ts } from '../../../i18n/text.ts'
import { number } from '../../../i18n/time.ts'
import { useAction } from '../../../ui/action.tsx'
import { FormDialog } from '../../../ui/form-dialog.tsx'
import { Field, faultOf } from '../../../ui/field.tsx'
import { ReasonField } from '../../../ui/impact.tsx'
import { notify } from '../../../ui/notice.tsx'
import { Fault } from '../../../ui/problem.tsx'
import { branch } from '../branch.ts'
import type { SeatRow } from './data.ts'

interface AreasProps {
  areas: ReadonlyMap<string, string>
  rows: readonly SeatRow[]
  onDone: () => void
}

/** Areas lists the areas of a branch with their floors, and changes them. */
export function Areas({ areas, rows, onDone }: AreasProps): JSX.Element | null {
  const text = ts().seats.areas
  const editing = useSignal<string | undefined>(undefined)
  if (areas.size === 0) return null
  return (
    <section class="card">
      <h2>{text.title}</h2>
      <table>
        <thead>
          <tr>
            <th scope="col">{text.name}</th>
            <th scope="col">{text.floor}</th>
            <th scope="col" class="num">
              {text.seats}
            </th>
            <th scope="col">
              <span class="visually-hidden">{text.edit}</span>
            </th>
          </tr>
        </thead>
        <tbody>
          {[...areas].map(([name, floor]) => (
            <tr key={name}>
              <th scope="row">{name}</th>
              <td>{floor}</td>
              <td class="num">{number(rows.filter((r) => r.area === name).length)}</td>
              <td>
                <button
                  class="link"
                  type="button"
                  aria-label={text.editOne(name)}
                  onClick={() => (editing.value = name)}
                >
                  {text.edit}
                </button>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
      {editing.value !== undefined && (
        <AreaDialog
          name={editing.value}
          areas={areas}
          onClose={() => (editing.value = undefined)}
          onDone={() => {
            editing.value = undefined
            onDone()
          }}
        />
      )}
    </section>
  )
}

interface AreaDialogProps {
  name: string
  areas: ReadonlyMap<string, string>
  onDone: () => void
  onClose: () => void
}

function AreaDialog({ name, areas, onDone, onClose }: AreaDialogProps): JSX.Element {
  const text = ts().seats.areas
  const action = useAction()
  const newName = useSignal(name)
  const floor = useSignal(areas.get(name) ?? '')
  const reason = useSignal('')
  const wanted = newName.value.trim()
  const merges = wanted !== name && areas.has(wanted)

  async function save(): Promise<void> {
    const ok = await action.run(async () => {
      await call(
        api.POST('/v1/admin/branches/{branch}/areas', {
          params: { path: { branch: branch.value?.code ?? '' } },
          // A call without a floor removes the floor.
          body: {
            name,
            newName: wanted === name ? '' : wanted,
            floor: floor.value.trim(),
            reason: reason.value.trim(),
          },
        }),
      )
    })
    if (!ok) return
    notify(text.saved(wanted))
    onDone()
  }

  return (
    <FormDialog
      title={text.editOne(name)}
      submit={merges ? text.merge : t().common.save}
      busy={action.busy.value}
      onSubmit={() => void save()}
      onClose={onClose}
    >
      <Field label={text.name} hint={text.nameHint} fault={faultOf(action.problem.value, 'newName')}>
        {(a) => (
          <input
            {...a}
            required
            maxLength={100}
            value={newName.value}
            onInput={(e) => (newName.value = e.currentTarget.value)}
          />
        )}
      </Field>
      {merges && (
        <p class="tag warn" role="status">
          {text.merges(name, wanted)}
        </p>
      )}
      <Field label={text.floor} hint={text.floorHint} fault={faultOf(action.problem.value, 'floor')} optional>
        {(a) => (
          <input
            {...a}
            maxLength={50}
            value={floor.value}
            onInput={(e) => (floor.value = e.currentTarget.value)}
          />
        )}
      </Field>
      <ReasonField value={reason.value} onChange={(r) => (reason.value = r)} />
      <Fault problem={action.problem.value} />
    </FormDialog>
  )
}
