import { useSignal } from '@preact/signals'
import { useEffect } from 'preact/hooks'
import type { JSX } from 'preact'
import { api, call, type Schema } from '../../../api/client.ts'
import { ts } from '../../../i18n/text.ts'
import { day } from '../../../i18n/time.ts'
import { Button, useAction } from '../../../ui/action.tsx'
import { Dialog } from '../../../ui/dialog.tsx'
import { FormDialog } from '../../../ui/form-dialog.tsx'
import { Field, faultOf } from '../../../ui/field.tsx'
import { ReasonField } from '../../../ui/impact.tsx'
import { notify } from '../../../ui/notice.tsx'
import { Fault } from '../../../ui/problem.tsx'
import { branch } from '../branch.ts'

type Key = Schema<'ServiceKey'>
type Scope = 'KEY_SCOPE_SCREEN' | 'KEY_SCOPE_ARRIVALS' | 'KEY_SCOPE_REPORTS'

const scopes: readonly Scope[] = ['KEY_SCOPE_SCREEN', 'KEY_SCOPE_ARRIVALS', 'KEY_SCOPE_REPORTS']

/** Keys lists the service keys of a branch. An admin makes them and ends them. */
export function Keys({ branch: code }: { branch: string }): JSX.Element {
  const text = ts().seats.key
  const load = useAction()
  const keys = useSignal<readonly Key[]>([])
  const open = useSignal<'create' | Key | undefined>(undefined)
  const reload = (): void =>
    void load.run(async () => {
      keys.value = (await call(api.GET('/v1/admin/keys'))).keys.filter((k) => k.branch === code)
    })
  useEffect(reload, [code])
  const zone = branch.value?.timezone ?? 'UTC'
  const close = (): void => void (open.value = undefined)
  const ended = keys.value.filter((k) => k.revokedAt !== undefined)
  return (
    <section class="card">
      <h2>{text.title}</h2>
      <p>{text.intro}</p>
      <Fault problem={load.problem.value} />
      <ul class="plain-list screens">
        {keys.value
          .filter((k) => k.revokedAt === undefined)
          .map((k) => (
            <li key={k.id} class="row">
              <strong>{k.name}</strong>
              {k.scopes.map((s) => (
                <span class="tag" key={s}>
                  {scopeName(s)}
                </span>
              ))}
              <small>{k.createdAt !== undefined && text.since(day(k.createdAt, zone))}</small>
              <Button kind="danger" label={text.revokeOne(k.name)} onClick={() => (open.value = k)}>
                {text.revoke}
              </Button>
            </li>
          ))}
      </ul>
      {ended.length > 0 && (
        <details>
          <summary>{text.ended(ended.length)}</summary>
          <ul>
            {ended.map((k) => (
              <li key={k.id}>
                {k.name} <small>{text.endedAt(day(k.revokedAt ?? '', zone))}</small>
              </li>
            ))}
          </ul>
        </details>
      )}
      <Button onClick={() => (open.value = 'create')}>{text.create}</Button>
      {open.value === 'create' && <CreateDialog branch={code} onCreated={reload} onClose={close} />}
      {typeof open.value === 'object' && (
        <RevokeDialog
          of={open.value}
          onClose={close}
          onDone={() => {
            close()
            reload()
          }}
        />
      )}
    </section>
  )
}

function scopeName(scope: string): string {
  return (ts().seats.key.scope as Record<string, string>)[scope] ?? scope
}

interface CreateDialogProps {
  branch: string
  onCreated: () => void
  onClose: () => void
}

/** CreateDialog makes a key and shows its secret, which exists nowhere else. */
function CreateDialog({ branch: code, onCreated, onClose }: CreateDialogProps): JSX.Element {
  const text = ts().seats.key
  const action = useAction()
  const name = useSignal('')
  const chosen = useSignal<readonly Scope[]>(['KEY_SCOPE_SCREEN'])
  const reason = useSignal('')
  const secret = useSignal('')
  const copied = useSignal<'' | 'yes' | 'no'>('')

  async function create(): Promise<void> {
    const ok = await action.run(async () => {
      const body = {
        name: name.value.trim(),
        branch: code,
        scopes: [...chosen.value],
        reason: reason.value.trim(),
      }
      secret.value = (await call(api.POST('/v1/admin/keys', { body }))).secret
    })
    if (ok) onCreated()
  }

  async function copy(): Promise<void> {
    try {
      await navigator.clipboard.writeText(secret.value)
      copied.value = 'yes'
    } catch {
      copied.value = 'no' // without TLS, or the user has refused: the text can be selected
    }
  }

  if (secret.value !== '') {
    return (
      <Dialog title={text.secretTitle(name.value.trim())} onClose={onClose}>
        <p class="banner">{text.once}</p>
        <p>
          <code class="secret" tabIndex={0}>
            {secret.value}
          </code>
        </p>
        <p role="status">
          {copied.value === 'yes' ? text.copied : copied.value === 'no' ? text.notCopied : ''}
        </p>
        <div class="row end">
          <Button onClick={() => void copy()}>{text.copy}</Button>
          <Button kind="main" onClick={onClose}>
            {text.kept}
          </Button>
        </div>
      </Dialog>
    )
  }
  return (
    <FormDialog
      title={text.create}
      submit={text.create}
      busy={action.busy.value}
      disabled={chosen.value.length === 0}
      onSubmit={() => void create()}
      onClose={onClose}
    >
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
      <fieldset>
        <legend>{text.may}</legend>
        {scopes.map((s) => (
          <label class="choice" key={s}>
            <input
              type="checkbox"
              checked={chosen.value.includes(s)}
              onChange={(e) => {
                const on = e.currentTarget.checked
                chosen.value = scopes.filter((x) => (x === s ? on : chosen.value.includes(x)))
              }}
            />
            <span>{scopeName(s)}</span>
          </label>
        ))}
      </fieldset>
      <ReasonField value={reason.value} onChange={(r) => (reason.value = r)} />
      {action.problem.value?.reason === 'KEY_EXISTS' ? (
        <div class="fault" role="alert">
          <p>{text.exists}</p>
        </div>
      ) : (
        <Fault problem={action.problem.value} />
      )}
    </FormDialog>
  )
}

function RevokeDialog({
  of,
  onDone,
  onClose,
}: {
  of: Key
  onDone: () => void
  onClose: () => void
}): JSX.Element {
  const text = ts().seats.key
  const action = useAction()
  const reason = useSignal('')
  async function revoke(): Promise<void> {
    const ok = await action.run(async () => {
      await call(
        api.POST('/v1/admin/keys/{keyId}:revoke', {
          params: { path: { keyId: of.id } },
          body: { reason: reason.value.trim() },
        }),
      )
    })
    if (!ok) return
    notify(text.revoked(of.name))
    onDone()
  }
  return (
    <FormDialog
      title={text.revokeOne(of.name)}
      submit={text.revoke}
      kind="danger"
      busy={action.busy.value}
      onSubmit={() => void revoke()}
      onClose={onClose}
    >
      <p>{text.revokeText}</p>
      <ReasonField value={reason.value} onChange={(r) => (reason.value = r)} />
      <Fault problem={action.problem.value} />
    </FormDialog>
  )
}
