import { useEffect } from 'preact/hooks'
import type { JSX } from 'preact'
import { t } from '../../i18n/text.ts'
import { go, Link } from '../../router.tsx'
import { account } from '../../state/session.ts'
import { nextPath, withNext } from './next.ts'
import { SignIn } from './sign-in.tsx'

/** View is the page to sign in. A user who is signed in goes on. */
export function View(): JSX.Element {
  const user = account.value
  useEffect(() => {
    if (user) go(nextPath(), true)
  }, [user])
  if (user === undefined)
    return (
      <p class="loading" role="status">
        {t().common.loading}
      </p>
    )
  return (
    <div class="narrow">
      <h1>{t().common.signIn}</h1>
      <div class="card">
        <SignIn />
      </div>
      <p>
        {t().account.noAccount} <Link href={withNext('/register')}>{t().common.register}</Link>
      </p>
      <p>
        <small>{t().account.forgotten}</small>
      </p>
      <p>
        <Link href="/settings">{t().account.appearance}</Link>
      </p>
    </div>
  )
}
