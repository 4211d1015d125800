import { useSignal } from '@preact/signals'
import { useId } from 'preact/hooks'
import type { JSX } from 'preact'
import { api, call, type Schema } from '../../../api/client.ts'
import { t, ts } from '../../../i18n/text.ts'
import { number } from '../../../i18n/time.ts'
import { setQuery } from '../../../router.tsx'
import { Button, useAction } from '../../../ui/action.tsx'
import { FormDialog } from '../../../ui/form-dialog.tsx'
import { Field, faultOf } from '../../../ui/field.tsx'
import { ReasonField } from '../../../ui/impact.tsx'
import { notify } from '../../../ui/notice.tsx'
import { Fault } from '../../../ui/problem.tsx'
import { branches, loadBranches } from '../branch.ts'

type Editing = Schema<'BranchSettings'> | 'new' | undefined

/** Branches lists the branches; an admin creates and changes them. */
export function Branches(): JSX.Element {
  const text = ts().seats.branches
  const editing = useSignal<Editing>(undefined)
  return (
    <section class="card">
      <h2>{text.title}</h2>
      <div class="scroll" tabIndex={0} role="group" aria-label={text.title}>
        <table>
          <thead>
            <tr>
              <th scope="col">{text.name}</th>
              <th scope="col">{text.code}</th>
              <th scope="col">{text.zone}</th>
              <th scope="col" class="num">
                {text.seats}
              </th>
              <th scope="col">
                <span class="visually-hidden">{text.edit}</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {branches.value.map((b) => (
              <tr key={b.code}>
                <th scope="row">{b.name}</th>
                <td>{b.code}</td>
                <td>{b.timezone}</td>
                <td class="num">{number(b.seatCount)}</td>
                <td>
                  <button
                    class="link"
                    type="button"
                    aria-label={text.editOne(b.name)}
                    onClick={() => (editing.value = b)}
                  >
                    {text.edit}
                  </button>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <p>
        <small>{text.noRemoval}</small>
      </p>
      <Button onClick={() => (editing.value = 'new')}>{text.add}</Button>
      {editing.value !== undefined && (
        <BranchDialog branch={editing.value} onClose={() => (editing.value = undefined)} />
      )}
    </section>
  )
}

function BranchDialog({
  branch,
  onClose,
}: {
  branch: Exclude<Editing, undefined>
  onClose: () => void
}): JSX.Element {
  const text = ts().seats.branches
  const list = useId()
  const action = useAction()
  const isNew = branch === 'new'
  const code = useSignal(isNew ? '' : branch.code)
  const name = useSignal(isNew ? '' : branch.name)
  const zone = useSignal(isNew ? (branches.value[0]?.timezone ?? 'UTC') : branch.timezone)
  const reason = useSignal('')
  const exists = isNew && branches.value.some((b) => b.code === code.value.trim())

  async function save(): Promise<void> {
    const wanted = code.value.trim()
    const ok = await action.run(async () => {
      await call(
        api.POST('/v1/admin/branches/{code}', {
          params: { path: { code: wanted } },
          body: { name: name.value.trim(), timezone: zone.value.trim(), reason: reason.value.trim() },
        }),
      )
      await loadBranches()
    })
    if (!ok) return
    notify(text.saved(name.value.trim()))
    onClose()
    if (isNew) setQuery({ branch: wanted })
  }

  return (
    <FormDialog
      title={isNew ? text.add : text.editOne(branch.name)}
      submit={t().common.save}
      busy={action.busy.value}
      onSubmit={() => {
        if (!exists) void save()
      }}
      onClose={onClose}
    >
      <Field label={text.name} fault={faultOf(action.problem.value, 'name')}>
        {(a) => (
          <input
            {...a}
            required
            maxLength={200}
            value={name.value}
            onInput={(e) => (name.value = e.currentTarget.value)}
          />
        )}
      </Field>
      {isNew && (
        <Field
          label={text.code}
          hint={text.codeHint}
          fault={exists ? text.codeExists : faultOf(action.problem.value, 'code')}
        >
          {(a) => (
            <input
              {...a}
              required
              maxLength={32}
              pattern="[a-z0-9\-]+"
              autocapitalize="none"
              value={code.value}
              onInput={(e) => (code.value = e.currentTarget.value)}
            />
          )}
        </Field>
      )}
      <Field label={text.zone} hint={text.zoneHint} fault={faultOf(action.problem.value, 'timezone')}>
        {(a) => (
          <input
            {...a}
            required
            list={list}
            value={zone.value}
            onInput={(e) => (zone.value = e.currentTarget.value)}
          />
        )}
      </Field>
      <datalist id={list}>
        {Intl.supportedValuesOf('timeZone').map((z) => (
          <option key={z} value={z} />
        ))}
      </datalist>
      <ReasonField value={reason.value} onChange={(r) => (reason.value = r)} />
      <Fault problem={action.problem.value} />
    </FormDialog>
  )
}
