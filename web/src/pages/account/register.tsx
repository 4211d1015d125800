import { useSignal } from '@preact/signals'
import { useEffect, useRef } from 'preact/hooks'
import type { InputHTMLAttributes, JSX } from 'preact'
import { api, call } from '../../api/client.ts'
import { asProblem } from '../../api/problem.ts'
import { t } from '../../i18n/text.ts'
import { go, Link } from '../../router.tsx'
import { account, signIn } from '../../state/session.ts'
import { Button, useAction } from '../../ui/action.tsx'
import { Field, faultOf } from '../../ui/field.tsx'
import { notify } from '../../ui/notice.tsx'
import { Fault } from '../../ui/problem.tsx'
import { nextPath, withNext } from './next.ts'
import { PasswordField } from './password.tsx'
import { nameFits, passwordFits, passwordTooLong, studentIdFits } from './rules.ts'
import { Stay } from './stay.tsx'

type Name = 'studentId' | 'name' | 'email' | 'password'

const empty: Record<Name, string> = { studentId: '', name: '', email: '', password: '' }

/** View is the page to create an account. The new user is signed in at once. */
export function View(): JSX.Element {
  const user = account.value
  const values = useSignal(empty)
  const judged = useSignal(false)
  const stay = useSignal(false)
  const form = useRef<HTMLFormElement>(null)
  const { busy, problem, run } = useAction()
  const a = t().account
  useEffect(() => {
    if (user) go(nextPath(), true)
  }, [user])

  const valid: Record<Name, boolean> = {
    studentId: studentIdFits(values.value.studentId.trim()),
    name: nameFits(values.value.name),
    email: /^\S+@\S+$/.test(values.value.email.trim()),
    password: passwordFits(values.value.password),
  }
  const rule = (name: Name): string =>
    name === 'password' && passwordTooLong(values.value.password) ? a.passwordTooLong : a.rule[name]
  const fault = (name: Name): string | undefined =>
    (judged.value && !valid[name]) || faultOf(problem.value, name) !== undefined ? rule(name) : undefined
  const set =
    (name: Name) =>
    (value: string): void => {
      values.value = { ...values.value, [name]: value }
    }

  const submit = async (): Promise<void> => {
    judged.value = true
    if (Object.values(valid).every(Boolean)) {
      await run(async () => {
        const body = {
          ...values.value,
          studentId: values.value.studentId.trim(),
          email: values.value.email.trim(),
        }
        const created = await register(body, stay.value)
        // The account of an earlier attempt has the same name.
        const name = account.value?.user.name ?? body.name.trim()
        const text = created || name === body.name.trim() ? t().account.welcome : t().account.welcomeBack
        notify(text(name))
      })
    }
    // The first field with a fault, once it is marked.
    requestAnimationFrame(() => form.current?.querySelector<HTMLInputElement>('[aria-invalid]')?.focus())
  }

  const text = (name: Exclude<Name, 'password'>, rest: InputHTMLAttributes): JSX.Element => (
    <Field label={a[name]} hint={fault(name) === undefined ? a.rule[name] : undefined} fault={fault(name)}>
      {(attributes) => (
        <input
          {...rest}
          {...attributes}
          required
          value={values.value[name]}
          onInput={(e) => set(name)(e.currentTarget.value)}
        />
      )}
    </Field>
  )
  const marked = (Object.keys(valid) as Name[]).some((name) => fault(name) !== undefined)
  return (
    <div class="narrow">
      <h1>{t().common.register}</h1>
      <form
        ref={form}
        class="card account-form"
        noValidate
        onSubmit={(e) => {
          e.preventDefault()
          void submit()
        }}
      >
        {text('studentId', {
          name: 'username',
          autocomplete: 'username',
          autocapitalize: 'off',
          spellcheck: false,
        })}
        {text('name', { name: 'name', autocomplete: 'name', dir: 'auto' })}
        {text('email', { name: 'email', type: 'email', autocomplete: 'email' })}
        <PasswordField
          label={a.password}
          autocomplete="new-password"
          hint={fault('password') === undefined ? a.rule.password : undefined}
          fault={fault('password')}
          value={values.value.password}
          onInput={set('password')}
        />
        <Stay value={stay} />
        {marked ? (
          <p class="fault" role="alert">
            {t().errors.INVALID_FIELDS}
          </p>
        ) : (
          <Fault problem={problem.value} />
        )}
        <Button kind="main" type="submit" busy={busy.value}>
          {t().common.register}
        </Button>
      </form>
      <p>
        {a.haveAccount} <Link href={withNext('/login')}>{t().common.signIn}</Link>
      </p>
    </div>
  )
}

/**
 * register creates an account and signs in. If the answer of an earlier attempt was lost, it signs in
 * only. It reports whether it has created the account.
 */
async function register(body: Record<Name, string>, stay: boolean): Promise<boolean> {
  try {
    await call(api.POST('/v1/auth/register', { body }))
  } catch (e) {
    const taken = asProblem(e)
    if (taken.reason !== 'STUDENT_ID_TAKEN') throw taken
    try {
      await signIn(body.studentId, body.password, stay)
      return false
    } catch (again) {
      throw asProblem(again).reason === 'BAD_CREDENTIALS' ? taken : again
    }
  }
  await signIn(body.studentId, body.password, stay)
  return true
}
