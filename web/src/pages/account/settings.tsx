import type { JSX } from 'preact'
import { chooseLanguage, language, languages, t, type Language } from '../../i18n/text.ts'
import { dayAndClock, longDay } from '../../i18n/time.ts'
import { Link } from '../../router.tsx'
import { theme, type Theme } from '../../state/preferences.ts'
import { account, isStaff, signOut, type Account } from '../../state/session.ts'
import { Button, useAction } from '../../ui/action.tsx'
import { notify } from '../../ui/notice.tsx'
import { Fault } from '../../ui/problem.tsx'
import { CloseAccount } from './close.tsx'
import { Export } from './export.tsx'
import { ChangePassword } from './change-password.tsx'
import { SignOutEverywhere } from './everywhere.tsx'

/** View is the page of the settings. Language and colours are for every visitor, the rest is for users. */
export function View(): JSX.Element {
  const user = account.value
  const a = t().account
  return (
    <div class="narrow">
      <h1>{a.title}</h1>
      {user && <Person user={user} />}
      {user === null && (
        <section class="card">
          <p>{a.signInFor}</p>
          <div class="row">
            <Link href="/login?next=/settings" class="button main">
              {t().common.signIn}
            </Link>
            <Link href="/register?next=/settings" class="button">
              {t().common.register}
            </Link>
          </div>
        </section>
      )}
      <Appearance />
      {user && (
        <>
          <Sessions />
          <ChangePassword />
          <Export />
          <CloseAccount />
        </>
      )}
    </div>
  )
}

function Person({ user: { user, branches, expiresAt } }: { user: Account }): JSX.Element {
  const a = t().account
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone
  return (
    <section class="card" aria-labelledby="account-data">
      <h2 id="account-data">{a.account}</h2>
      <dl class="facts">
        <div>
          <dt>{a.name}</dt>
          <dd dir="auto">{user.name}</dd>
        </div>
        <div>
          <dt>{a.studentId}</dt>
          <dd>{user.studentId}</dd>
        </div>
        <div>
          <dt>{a.email}</dt>
          <dd>{user.email}</dd>
        </div>
        {isStaff.value && (
          <div>
            <dt>{a.role}</dt>
            <dd>{t().common.role[user.role]}</dd>
          </div>
        )}
        {isStaff.value && (
          <div>
            <dt>{a.branches}</dt>
            <dd>{branches.length === 0 ? a.allBranches : branches.join(', ')}</dd>
          </div>
        )}
        {user.createdAt !== undefined && (
          <div>
            <dt>{a.since}</dt>
            <dd>{longDay(user.createdAt, zone)}</dd>
          </div>
        )}
        {expiresAt !== '' && (
          <div>
            <dt>{a.signedInUntil}</dt>
            <dd>{dayAndClock(expiresAt, zone)}</dd>
          </div>
        )}
      </dl>
    </section>
  )
}

function Appearance(): JSX.Element {
  const a = t().account
  return (
    <section class="card" aria-labelledby="appearance">
      <h2 id="appearance">{a.appearance}</h2>
      <fieldset class="bare">
        <legend>{a.language}</legend>
        <div class="chips">
          {(Object.keys(languages) as Language[]).map((l) => (
            <button
              key={l}
              class="chip"
              type="button"
              lang={l === 'zh' ? 'zh-Hans' : l}
              aria-pressed={language.value === l}
              onClick={() => void chooseLanguage(l).catch(() => notify(t().common.failedText))}
            >
              {languages[l]}
            </button>
          ))}
        </div>
      </fieldset>
      <fieldset class="bare">
        <legend>{a.theme}</legend>
        <div class="chips">
          {(Object.keys(a.themes) as Theme[]).map((name) => (
            <button
              key={name}
              class="chip"
              type="button"
              aria-pressed={theme.value === name}
              onClick={() => {
                theme.value = name
              }}
            >
              {a.themes[name]}
            </button>
          ))}
        </div>
      </fieldset>
    </section>
  )
}

function Sessions(): JSX.Element {
  const a = t().account
  const { busy, problem, run } = useAction()
  return (
    <section class="card" aria-labelledby="sessions">
      <h2 id="sessions">{a.sessions}</h2>
      <div class="row">
        <Button
          busy={busy.value}
          onClick={() =>
            void run(async () => {
              await signOut()
              notify(t().account.signedOutHere)
            })
          }
        >
          {a.signOutHere}
        </Button>
        <SignOutEverywhere />
      </div>
      <Fault problem={problem.value} />
    </section>
  )
}
