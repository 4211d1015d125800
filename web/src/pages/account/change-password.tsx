import { useSignal } from '@preact/signals'
import { useRef } from 'preact/hooks'
import type { JSX } from 'preact'
import { t } from '../../i18n/text.ts'
import { account, changePassword } from '../../state/session.ts'
import { Button, useAction } from '../../ui/action.tsx'
import { faultOf } from '../../ui/field.tsx'
import { notify } from '../../ui/notice.tsx'
import { Fault } from '../../ui/problem.tsx'
import { PasswordField } from './password.tsx'
import { passwordFits, passwordTooLong } from './rules.ts'

/** ChangePassword is the form to change the password. */
export function ChangePassword(): JSX.Element {
  const current = useSignal('')
  const next = useSignal('')
  const judged = useSignal(false)
  const form = useRef<HTMLFormElement>(null)
  const { busy, problem, run } = useAction()
  const a = t().account
  const wrong =
    problem.value?.reason === 'BAD_CREDENTIALS' || faultOf(problem.value, 'currentPassword') !== undefined
  const same = next.value !== '' && next.value === current.value
  const refused = faultOf(problem.value, 'newPassword') !== undefined
  const bad = refused || (judged.value && (same || !passwordFits(next.value)))
  const rule = passwordTooLong(next.value) ? a.passwordTooLong : a.rule.password

  const submit = async (): Promise<void> => {
    judged.value = true
    if (!same && passwordFits(next.value)) {
      const done = await run(() => changePassword(current.value, next.value))
      if (done) {
        current.value = next.value = ''
        judged.value = false
        notify(t().account.passwordChanged)
        return
      }
    }
    requestAnimationFrame(() => form.current?.querySelector<HTMLInputElement>('[aria-invalid]')?.focus())
  }

  return (
    <section class="card" aria-labelledby="change-password">
      <h2 id="change-password">{a.changePassword}</h2>
      <form
        ref={form}
        class="account-form"
        noValidate
        onSubmit={(e) => {
          e.preventDefault()
          void submit()
        }}
      >
        {/* For password managers, which would not know whose password it is. */}
        <input
          class="visually-hidden"
          name="username"
          autocomplete="username"
          readOnly
          tabIndex={-1}
          aria-hidden="true"
          value={account.value?.user.studentId}
        />
        <PasswordField
          label={a.currentPassword}
          autocomplete="current-password"
          fault={wrong ? a.wrongPassword : undefined}
          value={current.value}
          onInput={(v) => {
            current.value = v
          }}
        />
        <PasswordField
          label={a.newPassword}
          autocomplete="new-password"
          hint={bad ? undefined : a.rule.password}
          fault={bad ? (same ? a.samePassword : rule) : undefined}
          value={next.value}
          onInput={(v) => {
            next.value = v
          }}
        />
        {!wrong && problem.value?.reason !== 'INVALID_FIELDS' && <Fault problem={problem.value} />}
        <p>
          <small>{a.passwordEnds}</small>
        </p>
        <Button type="submit" busy={busy.value}>
          {a.changePassword}
        </Button>
      </form>
    </section>
  )
}
