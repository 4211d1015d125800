import { useSignal } from '@preact/signals'
import { useEffect } from 'preact/hooks'
import type { JSX } from 'preact'
import { api, call, type Schema } from '../../api/client.ts'
import { t, ts } from '../../i18n/text.ts'
import { dayAndClock } from '../../i18n/time.ts'
import { here, Link, setQuery } from '../../router.tsx'
import { minute } from '../../state/clock.ts'
import { isAdmin } from '../../state/session.ts'
import { Button, useAction } from '../../ui/action.tsx'
import { Field } from '../../ui/field.tsx'
import { Fault } from '../../ui/problem.tsx'
import { branch } from './branch.ts'
import { EditPerson, EditRole } from './people/edit.tsx'
import { Paste } from './people/paste.tsx'

type Person = Schema<'Person'>

/** Section finds users, and lets an admin change their data and roles. */
export function Section(): JSX.Element {
  const text = ts().people
  const asked = here.value.query.get('q') ?? ''
  const typed = useSignal(asked)
  const found = useSignal<readonly Person[] | undefined>(undefined)
  const search = useAction()
  const editing = useSignal<Person | undefined>(undefined)
  const giving = useSignal<Person | undefined>(undefined)

  async function find(what: string): Promise<void> {
    if (what === '') return
    await search.run(async () => {
      found.value = await findPeople(what)
    })
  }
  useEffect(() => {
    typed.value = asked
    if (asked === '') found.value = undefined
    else void find(asked)
  }, [asked])

  return (
    <>
      <form
        role="search"
        class="card row people-search"
        onSubmit={(e) => {
          e.preventDefault()
          const what = typed.value.trim()
          if (what === asked) void find(what)
          else setQuery({ q: what })
        }}
      >
        <Field label={text.search} hint={text.searchHint}>
          {(a) => (
            <input
              {...a}
              type="search"
              value={typed.value}
              onInput={(e) => (typed.value = e.currentTarget.value)}
            />
          )}
        </Field>
        <Button type="submit" kind="main" busy={search.busy.value}>
          {text.find}
        </Button>
      </form>
      <Fault problem={search.problem.value} />
      {found.value !== undefined && <p role="status">{text.found(found.value.length)}</p>}
      <ul class="plain-list">
        {found.value?.map((p) => (
          <li key={p.id} class="card person">
            <PersonCard person={p} />
            <div class="row end">
              <Link class="button" href={`/desk/${p.id}`} label={`${text.atDesk}: ${p.name}`}>
                {text.atDesk}
              </Link>
              {isAdmin.value && (
                <>
                  <Button label={`${text.edit}: ${p.name}`} onClick={() => (editing.value = p)}>
                    {text.edit}
                  </Button>
                  <Button label={`${text.role}: ${p.name}`} onClick={() => (giving.value = p)}>
                    {text.role}
                  </Button>
                </>
              )}
            </div>
          </li>
        ))}
      </ul>
      {isAdmin.value ? (
        <details class="card">
          <summary>{text.many}</summary>
          <Paste onDone={() => void find(asked)} />
        </details>
      ) : (
        <p>
          <small>{text.adminOnly}</small>
        </p>
      )}
      {editing.value !== undefined && (
        <EditPerson
          person={editing.value}
          onClose={() => (editing.value = undefined)}
          onDone={() => {
            editing.value = undefined
            void find(asked)
          }}
        />
      )}
      {giving.value !== undefined && (
        <EditRole
          person={giving.value}
          onClose={() => (giving.value = undefined)}
          onDone={() => {
            giving.value = undefined
            void find(asked)
          }}
        />
      )}
    </>
  )
}

function PersonCard({ person: p }: { person: Person }): JSX.Element {
  const text = ts().people
  const zone = branch.value?.timezone ?? 'UTC'
  const suspended = p.suspendedUntil !== undefined && Date.parse(p.suspendedUntil) > minute.value
  return (
    <>
      <h2>
        <bdi>{p.name}</bdi>
      </h2>
      <p>
        {p.studentId} · <span class="tag">{t().common.role[p.role]}</span>
        {suspended && (
          <span class="tag warn">{text.suspended(dayAndClock(p.suspendedUntil ?? '', zone))}</span>
        )}
        {p.closedAt !== undefined && <span class="tag taken">{text.closed}</span>}
      </p>
      <p>
        <small>
          {p.email}
          {p.group !== '' && ` · ${text.group}: ${p.group}`}
          {p.card !== '' && ` · ${text.card}: ${p.card}`}
        </small>
      </p>
    </>
  )
}

/** findPeople searches by e-mail, or by student id, card and name at once: a call takes one of them. */
async function findPeople(what: string): Promise<Person[]> {
  const queries: Record<string, string>[] = what.includes('@')
    ? [{ email: what }]
    : [
        ...(/^[A-Za-z0-9._-]{3,32}$/.test(what) ? [{ studentId: what }] : []),
        ...(what.length <= 64 ? [{ card: what }] : []),
        ...(what.length >= 2 && what.length <= 100 ? [{ name: what }] : []),
      ]
  const answers = await Promise.all(
    queries.map((q) => call(api.GET('/v1/desk/users', { params: { query: { ...q, pageSize: 100 } } }))),
  )
  return [...new Map(answers.flatMap((a) => a.users).map((p) => [p.id, p])).values()]
}
