import { useSignal } from '@preact/signals'
import { useRef } from 'preact/hooks'
import type { JSX } from 'preact'
import { t } from '../../i18n/text.ts'
import { signIn } from '../../state/session.ts'
import { Button, useAction } from '../../ui/action.tsx'
import { Field } from '../../ui/field.tsx'
import { notify } from '../../ui/notice.tsx'
import { Fault } from '../../ui/problem.tsx'
import { PasswordField } from './password.tsx'
import { Stay } from './stay.tsx'

/**
 * SignIn is the form to sign in. A page that needs a user in the middle of something shows it in place,
 * so that nothing is lost, and goes on when there is an account.
 */
export function SignIn(): JSX.Element {
  const studentId = useSignal('')
  const password = useSignal('')
  const stay = useSignal(false)
  const form = useRef<HTMLFormElement>(null)
  const { busy, problem, run } = useAction()
  const a = t().account

  const submit = async (): Promise<void> => {
    const done = await run(async () => {
      const stays = await signIn(studentId.value.trim(), password.value, stay.value)
      if (stay.value && !stays) notify(t().account.staysNot)
    })
    if (!done) form.current?.querySelector<HTMLInputElement>('input[type=password]')?.select()
  }

  return (
    <form
      ref={form}
      class="account-form"
      onSubmit={(e) => {
        e.preventDefault()
        void submit()
      }}
    >
      <Field label={a.studentId}>
        {(attributes) => (
          <input
            {...attributes}
            name="username"
            autocomplete="username"
            autocapitalize="off"
            spellcheck={false}
            required
            value={studentId.value}
            onInput={(e) => {
              studentId.value = e.currentTarget.value
            }}
          />
        )}
      </Field>
      <PasswordField
        label={a.password}
        autocomplete="current-password"
        value={password.value}
        onInput={(v) => {
          password.value = v
        }}
      />
      <Stay value={stay} />
      <Fault problem={problem.value} />
      <Button kind="main" type="submit" busy={busy.value}>
        {t().common.signIn}
      </Button>
    </form>
  )
}
