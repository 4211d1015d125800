import { useSignal } from '@preact/signals'
import { useEffect } from 'preact/hooks'
import type { JSX } from 'preact'
import { asProblem, type Problem } from '../../api/problem.ts'
import { t, ts } from '../../i18n/text.ts'
import { Link, signInPath } from '../../router.tsx'
import { branches, loadBranches } from '../../state/branches.ts'
import { account, isStaff } from '../../state/session.ts'
import { Fault } from '../../ui/problem.tsx'
import { PersonPage } from './person.tsx'
import { Search } from './search.tsx'
import { Today } from './today.tsx'

/** View is the page of the desk: the search, and the reservations of the day or a person. */
export function View({ path }: { path: string }): JSX.Element {
  const text = ts().desk
  const problem = useSignal<Problem | undefined>(undefined)
  const staff = isStaff.value
  useEffect(() => {
    if (!staff) return
    loadBranches().catch((e: unknown) => {
      problem.value = asProblem(e)
    })
  }, [staff])
  if (account.value === undefined)
    return (
      <p class="loading" role="status">
        {t().common.loading}
      </p>
    )
  if (!staff) {
    return (
      <>
        <h1>{text.title}</h1>
        {account.value === null ? (
          <p>
            {text.signIn} <Link href={signInPath()}>{t().common.signIn}</Link>
          </p>
        ) : (
          <p>{text.notStaff}</p>
        )}
      </>
    )
  }
  const id = /^\/desk\/(\d+)$/.exec(path)?.[1]
  return (
    <>
      <Search />
      <Fault problem={problem.value} />
      {id !== undefined ? (
        <PersonPage key={id} id={id} />
      ) : path !== '/desk' && path !== '/desk/' ? (
        <h1>{t().common.notFoundTitle}</h1>
      ) : branches.value.length > 0 ? (
        <Today />
      ) : (
        <p class="loading" role="status">
          {t().common.loading}
        </p>
      )}
    </>
  )
}
