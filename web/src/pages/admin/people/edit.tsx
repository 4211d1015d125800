import { useSignal } from '@preact/signals'
import { useEffect, useId } from 'preact/hooks'
import type { JSX } from 'preact'
import { api, call, type Schema } from '../../../api/client.ts'
import { t, ts } from '../../../i18n/text.ts'
import { account } from '../../../state/session.ts'
import { useAction } from '../../../ui/action.tsx'
import { FormDialog } from '../../../ui/form-dialog.tsx'
import { Field } from '../../../ui/field.tsx'
import { ReasonField } from '../../../ui/impact.tsx'
import { notify } from '../../../ui/notice.tsx'
import { Fault } from '../../../ui/problem.tsx'
import { branches } from '../branch.ts'
import { useLoaded } from '../parts.tsx'

interface EditProps {
  person: Schema<'Person'>
  onClose: () => void
  onDone: () => void
}

/** EditPerson changes the data of a user. Only fields that differ are sent. */
export function EditPerson({ person, onClose, onDone }: EditProps): JSX.Element {
  const text = ts().people
  const fields = useSignal({ name: person.name, email: person.email, group: person.group, card: person.card })
  const reason = useSignal('')
  const action = useAction()
  const changes = Object.fromEntries(
    (['name', 'email', 'group', 'card'] as const)
      .filter((f) => fields.value[f].trim() !== person[f])
      .map((f) => [f, fields.value[f].trim()]),
  )
  const inputs: [keyof typeof fields.value, string, string | undefined, number][] = [
    ['name', text.name, undefined, 100],
    ['email', text.email, undefined, 320],
    ['group', text.group, text.groupHint, 64],
    ['card', text.card, undefined, 64],
  ]

  async function save(): Promise<void> {
    const done = await action.run(async () => {
      const body = { users: [{ studentId: person.studentId, ...changes }], reason: reason.value.trim() }
      await call(api.POST('/v1/admin/users', { body }))
    })
    if (!done) return
    notify(text.saved(fields.value.name))
    onDone()
  }

  return (
    <FormDialog
      title={text.editTitle(person.studentId)}
      submit={t().common.save}
      busy={action.busy.value}
      disabled={Object.keys(changes).length === 0}
      noValidate
      onSubmit={() => void save()}
      onClose={onClose}
    >
      {inputs.map(([f, label, hint, most]) => (
        <Field
          key={f}
          label={label}
          hint={hint}
          fault={action.problem.value?.errors.find((e) => e.pointer.endsWith(f))?.detail}
        >
          {(a) => (
            <input
              {...a}
              inputMode={f === 'email' ? 'email' : 'text'}
              maxLength={most}
              value={fields.value[f]}
              onInput={(e) => (fields.value = { ...fields.value, [f]: e.currentTarget.value })}
            />
          )}
        </Field>
      ))}
      <ReasonField value={reason.value} onChange={(r) => (reason.value = r)} />
      <Fault problem={action.problem.value} />
    </FormDialog>
  )
}

const roles = ['ROLE_STUDENT', 'ROLE_STAFF', 'ROLE_LIBRARIAN', 'ROLE_ADMIN'] as const

/** EditRole gives a user a role, and for staff the branches of the role. */
export function EditRole({ person, onClose, onDone }: EditProps): JSX.Element {
  const text = ts().people
  const role = useSignal(person.role)
  const everywhere = useSignal(branches.value.length === 1)
  const chosen = useSignal<ReadonlySet<string>>(new Set())
  const present = useLoaded(() => branchesOfRole(person.id))
  useEffect(() => {
    // The form begins with the branches that the role has.
    const codes = present.data.value?.codes
    if (codes === undefined) return
    everywhere.value = codes === null
    chosen.value = new Set(codes)
  }, [present.data.value])
  const reason = useSignal('')
  const fault = useSignal('')
  const action = useAction()
  const name = useId()
  const own = account.value?.user.studentId === person.studentId
  const limited = role.value === 'ROLE_STAFF' || role.value === 'ROLE_LIBRARIAN'

  async function save(): Promise<void> {
    const codes = limited && !everywhere.value ? [...chosen.value] : []
    fault.value = limited && !everywhere.value && codes.length === 0 ? text.noBranch : ''
    if (fault.value !== '') return
    const done = await action.run(async () => {
      await call(
        api.POST('/v1/admin/users/{studentId}:setRole', {
          params: { path: { studentId: person.studentId } },
          body: { role: role.value, branches: codes, reason: reason.value.trim() },
        }),
      )
    })
    if (!done) return
    notify(text.roleSaved(person.name, t().common.role[role.value]))
    onDone()
  }

  return (
    <FormDialog
      title={text.roleTitle(person.name)}
      submit={t().common.save}
      busy={action.busy.value}
      disabled={own}
      onSubmit={() => void save()}
      onClose={onClose}
    >
      {own && <p class="banner">{t().errors.OWN_ROLE}</p>}
      <fieldset>
        <legend>{text.role}</legend>
        {roles.map((r) => (
          <label class="choice" key={r}>
            <input type="radio" name={name} checked={role.value === r} onChange={() => (role.value = r)} />
            <span>
              {t().common.role[r]}
              <br />
              <small>{text.roleMeaning[r]}</small>
            </span>
          </label>
        ))}
      </fieldset>
      {limited && (
        <fieldset>
          <legend>{text.branches}</legend>
          <label class="choice">
            <input
              type="checkbox"
              checked={everywhere.value}
              onChange={(e) => (everywhere.value = e.currentTarget.checked)}
            />
            {text.allBranches}
          </label>
          {!everywhere.value &&
            branches.value.map((b) => (
              <label class="choice" key={b.code}>
                <input
                  type="checkbox"
                  checked={chosen.value.has(b.code)}
                  onChange={() => {
                    const next = new Set(chosen.value)
                    if (!next.delete(b.code)) next.add(b.code)
                    chosen.value = next
                  }}
                />
                {b.name}
              </label>
            ))}
        </fieldset>
      )}
      <p>
        <small>{text.roleHint}</small>
      </p>
      <ReasonField value={reason.value} onChange={(r) => (reason.value = r)} />
      {fault.value !== '' && (
        <p class="fault" role="alert">
          {fault.value}
        </p>
      )}
      <Fault problem={action.problem.value} />
    </FormDialog>
  )
}

/** branchesOfRole returns the branches of the role of a user, which only the audit log has; null: all. */
async function branchesOfRole(userId: string): Promise<{ codes: string[] | null | undefined }> {
  const query = { object: `user/${userId}`, pageSize: 50 }
  const { entries } = await call(api.GET('/v1/admin/audit', { params: { query } }))
  for (const e of entries) {
    if (e.after === '') continue
    const state: unknown = JSON.parse(e.after)
    if (typeof state !== 'object' || state === null || !('role' in state) || !('branches' in state)) continue
    const { branches: codes } = state
    return { codes: Array.isArray(codes) && codes.length > 0 ? codes.map(String) : null }
  }
  return { codes: undefined }
}
