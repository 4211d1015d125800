import { useSignal } from '@preact/signals'
import type { JSX } from 'preact'
import { t } from '../../i18n/text.ts'
import { go } from '../../router.tsx'
import { closeAccount } from '../../state/session.ts'
import { Button, useAction } from '../../ui/action.tsx'
import { FormDialog } from '../../ui/form-dialog.tsx'
import { notify } from '../../ui/notice.tsx'
import { Fault } from '../../ui/problem.tsx'
import { PasswordField } from './password.tsx'

/** CloseAccount closes the account of the user, after they have read the consequences and given the password. */
export function CloseAccount(): JSX.Element {
  const open = useSignal(false)
  const a = t().account
  return (
    <section class="card" aria-labelledby="close-account">
      <h2 id="close-account">{a.close}</h2>
      <p>{a.closeText}</p>
      <Button
        kind="danger"
        onClick={() => {
          open.value = true
        }}
      >
        {a.close}…
      </Button>
      {open.value && (
        <Confirm
          onClose={() => {
            open.value = false
          }}
        />
      )}
    </section>
  )
}

function Confirm({ onClose }: { onClose: () => void }): JSX.Element {
  const password = useSignal('')
  const { busy, problem, run } = useAction()
  const a = t().account
  const reason = problem.value?.reason ?? ''
  const special: Record<string, string> = { SUSPENDED: a.closeSuspended, OWN_ROLE: a.closeAdmin }
  const wrong = reason === 'BAD_CREDENTIALS' || reason === 'INVALID_FIELDS'
  return (
    <FormDialog
      title={a.closeTitle}
      submit={a.closeConfirm}
      kind="danger"
      busy={busy.value}
      onSubmit={() => {
        void run(async () => {
          await closeAccount(password.value)
          notify(t().account.closed)
          go('/', true)
        })
      }}
      onClose={onClose}
    >
      <ul>
        {a.closeConsequences.map((text) => (
          <li key={text}>{text}</li>
        ))}
      </ul>
      <PasswordField
        label={a.password}
        autocomplete="current-password"
        fault={wrong ? a.wrongPassword : undefined}
        value={password.value}
        onInput={(v) => {
          password.value = v
        }}
      />
      {special[reason] !== undefined && (
        <p class="fault" role="alert">
          {special[reason]}
        </p>
      )}
      {special[reason] === undefined && !wrong && <Fault problem={problem.value} />}
    </FormDialog>
  )
}
