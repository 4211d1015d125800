import { useSignal } from '@preact/signals'
import { useEffect } from 'preact/hooks'
import type { JSX } from 'preact'
import { api, call, type Schema } from '../../api/client.ts'
import { t, ts } from '../../i18n/text.ts'
import { isAdmin } from '../../state/session.ts'
import { Button, useAction } from '../../ui/action.tsx'
import { FormDialog } from '../../ui/form-dialog.tsx'
import { Field, faultOf } from '../../ui/field.tsx'
import { ReasonField } from '../../ui/impact.tsx'
import { notify } from '../../ui/notice.tsx'
import { Fault } from '../../ui/problem.tsx'
import { branch } from './branch.ts'
import { Keys } from './seats/keys.tsx'

type Screen = Schema<'Screen'>
type Editing = { kind: 'add' } | { kind: 'rename' | 'switch'; screen: Screen } | undefined

/** Section lists the screens of a branch, and for an admin the service keys of its programs. */
export function Section(): JSX.Element {
  const text = ts().seats.screen
  const code = branch.value?.code ?? ''
  const load = useAction()
  const screens = useSignal<readonly Screen[] | undefined>(undefined)
  const editing = useSignal<Editing>(undefined)
  const reload = (): void =>
    void load.run(async () => {
      const params = { path: { branch: code } }
      screens.value = (await call(api.GET('/v1/admin/branches/{branch}/screens', { params }))).screens
    })
  useEffect(reload, [code])
  const close = (): void => void (editing.value = undefined)
  return (
    <div class="seats-page">
      <section class="card">
        <p>{text.intro}</p>
        <Fault problem={load.problem.value} />
        {screens.value === undefined && load.problem.value === undefined && (
          <p class="loading" role="status">
            {t().common.loading}
          </p>
        )}
        {screens.value?.length === 0 && <p>{text.none}</p>}
        <ul class="plain-list screens">
          {screens.value?.map((s) => (
            <li key={s.id} class="row">
              <strong>{s.name}</strong>
              <span class={s.off ? 'tag warn' : 'tag free'}>{s.off ? text.off : text.on}</span>
              <Button
                label={text.renameOne(s.name)}
                onClick={() => (editing.value = { kind: 'rename', screen: s })}
              >
                {text.rename}
              </Button>
              <Button
                kind={s.off ? 'plain' : 'danger'}
                label={s.off ? text.switchOnOne(s.name) : text.switchOffOne(s.name)}
                onClick={() => (editing.value = { kind: 'switch', screen: s })}
              >
                {s.off ? text.switchOn : text.switchOff}
              </Button>
            </li>
          ))}
        </ul>
        <Button kind="main" onClick={() => (editing.value = { kind: 'add' })}>
          {text.add}
        </Button>
      </section>
      <section class="card">
        <h2>{text.howTitle}</h2>
        <ol>
          <li>{text.how1}</li>
          <li>{isAdmin.value ? text.how2 : text.how2Librarian}</li>
          <li>
            {text.how3} <code>{location.origin}/screen</code>
          </li>
          <li>{text.how4}</li>
        </ol>
      </section>
      {isAdmin.value && <Keys branch={code} />}
      {editing.value !== undefined && (
        <ScreenDialog
          editing={editing.value}
          onClose={close}
          onDone={() => {
            close()
            reload()
          }}
        />
      )}
    </div>
  )
}

interface ScreenDialogProps {
  editing: Exclude<Editing, undefined>
  onDone: () => void
  onClose: () => void
}

function ScreenDialog({ editing, onDone, onClose }: ScreenDialogProps): JSX.Element {
  const text = ts().seats.screen
  const action = useAction()
  const old = editing.kind === 'add' ? '' : editing.screen.name
  const name = useSignal(old)
  const reason = useSignal('')
  const off = editing.kind === 'switch' ? !editing.screen.off : undefined
  const title = {
    add: text.add,
    rename: text.renameOne(old),
    switch: off === true ? text.switchOffOne(old) : text.switchOnOne(old),
  }[editing.kind]

  async function save(): Promise<void> {
    const wanted = name.value.trim()
    const ok = await action.run(async () => {
      await call(
        api.POST('/v1/admin/branches/{branch}/screens', {
          params: { path: { branch: branch.value?.code ?? '' } },
          body: {
            name: editing.kind === 'add' ? wanted : old,
            newName: editing.kind === 'rename' && wanted !== old ? wanted : '',
            reason: reason.value.trim(),
            ...(off === undefined ? {} : { off }),
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
      title={title}
      submit={off === undefined ? t().common.save : off ? text.switchOff : text.switchOn}
      kind={off === true ? 'danger' : 'main'}
      busy={action.busy.value}
      onSubmit={() => void save()}
      onClose={onClose}
    >
      {editing.kind === 'switch' ? (
        <p>{off === true ? text.offText : text.onText}</p>
      ) : (
        <Field label={text.name} hint={text.nameHint} fault={faultOf(action.problem.value, 'name')}>
          {(a) => (
            <input
              {...a}
              required
              maxLength={100}
              value={name.value}
              onInput={(e) => (name.value = e.currentTarget.value)}
            />
          )}
        </Field>
      )}
      <ReasonField value={reason.value} onChange={(r) => (reason.value = r)} />
      <Fault problem={action.problem.value} />
    </FormDialog>
  )
}
