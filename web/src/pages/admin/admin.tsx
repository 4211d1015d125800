import { useSignal } from '@preact/signals'
import { useEffect } from 'preact/hooks'
import type { ComponentType, JSX } from 'preact'
import { t, ts, type StaffText } from '../../i18n/text.ts'
import { go, Link, setQuery, signInPath } from '../../router.tsx'
import { asProblem, type Problem } from '../../api/problem.ts'
import { account, isLibrarian } from '../../state/session.ts'
import { Button } from '../../ui/action.tsx'
import { Fault } from '../../ui/problem.tsx'
import { adminPath, branch, branches, loadBranches } from './branch.ts'

interface Section {
  path: string
  title: (s: StaffText) => string
  load: () => Promise<ComponentType>
}

const work = (name: keyof typeof import('./work.ts')) => async (): Promise<ComponentType> =>
  (await import('./work.ts'))[name]
const inventory = (name: keyof typeof import('./inventory.ts')) => async (): Promise<ComponentType> =>
  (await import('./inventory.ts'))[name]

/** The sections of the page by subject. */
const groups: { title: (s: StaffText) => string; sections: Section[] }[] = [
  {
    title: (s) => s.admin.groupNow,
    sections: [
      { path: '/admin', title: (s) => s.admin.today, load: work('Today') },
      { path: '/admin/closures', title: (s) => s.hours.closures, load: work('Closures') },
      { path: '/admin/announcement', title: (s) => s.admin.announcement, load: work('Announcement') },
    ],
  },
  {
    title: (s) => s.admin.groupRules,
    sections: [
      { path: '/admin/hours', title: (s) => s.hours.title, load: work('Hours') },
      { path: '/admin/policies', title: (s) => s.policies.title, load: work('Policies') },
    ],
  },
  {
    title: (s) => s.seats.title,
    sections: [
      { path: '/admin/seats', title: (s) => s.seats.title, load: inventory('Seats') },
      { path: '/admin/map', title: (s) => s.seats.map, load: inventory('Plan') },
      { path: '/admin/import', title: (s) => s.seats.import, load: inventory('Import') },
      { path: '/admin/labels', title: (s) => s.seats.labels, load: inventory('Labels') },
      { path: '/admin/screens', title: (s) => s.seats.screens, load: inventory('Screens') },
    ],
  },
  {
    title: (s) => s.admin.groupLibrary,
    sections: [
      { path: '/admin/people', title: (s) => s.people.title, load: work('People') },
      { path: '/admin/reports', title: (s) => s.reports.title, load: work('Reports') },
      { path: '/admin/audit', title: (s) => s.admin.audit, load: work('Audit') },
    ],
  },
]

const sections = groups.flatMap((g) => g.sections)

/** View is the page of librarians and admins: a branch, and the section of it that the path names. */
export function View({ path: address }: { path: string }): JSX.Element {
  const path = address.replace(/\/$/, '')
  const user = account.value
  useEffect(() => {
    if (user === null) go(signInPath(), true)
  }, [user === null])
  if (!user)
    return (
      <p class="loading" role="status">
        {t().common.loading}
      </p>
    )
  if (isLibrarian.value) return <Frame path={path} />
  return (
    <>
      <h1>{ts().admin.title}</h1>
      <p>{t().errors.ROLE_REQUIRED}</p>
    </>
  )
}

function Frame({ path }: { path: string }): JSX.Element {
  const section = sections.find((s) => s.path === path)
  const problem = useSignal<Problem | undefined>(undefined)
  const failed = useSignal(false)
  const shown = useSignal<{ path: string; Section: ComponentType } | undefined>(undefined)
  const title = section?.title(ts()) ?? t().common.notFoundTitle
  async function load(): Promise<void> {
    problem.value = undefined
    await loadBranches().catch((e: unknown) => {
      problem.value = asProblem(e)
    })
  }
  useEffect(() => {
    void load()
  }, [])
  useEffect(() => {
    let current = true
    section?.load().then(
      (m) => {
        if (current) shown.value = { path, Section: m }
      },
      () => {
        failed.value = true
      },
    )
    return () => {
      current = false
    }
  }, [path])
  const chosen = branch.value
  return (
    <div class="admin-layout">
      <SectionNav path={path} />
      <div class="section">
        <SectionTitle path={path} title={title} />
        <Fault problem={problem.value} />
        {problem.value !== undefined && <Button onClick={() => void load()}>{t().common.retry}</Button>}
        {failed.value && (
          <div class="fault" role="alert">
            <p>{t().common.failedText}</p>
            <Button onClick={() => location.reload()}>{t().common.reload}</Button>
          </div>
        )}
        {shown.value?.path === path && chosen !== undefined && (
          <shown.value.Section key={path + chosen.code} />
        )}
      </div>
    </div>
  )
}

/** SectionTitle is the heading of the page. When the section changes, it gets the focus. */
function SectionTitle({ path, title }: { path: string; title: string }): JSX.Element {
  const before = useSignal(path)
  useEffect(() => {
    document.title = `${title} · ${t().common.appName}`
    if (before.value === path) return
    before.value = path
    document.querySelector<HTMLElement>('main h1')?.focus({ preventScroll: true })
  }, [path, title])
  return <h1 tabIndex={-1}>{title}</h1>
}

function SectionNav({ path }: { path: string }): JSX.Element {
  const open = useSignal(false)
  useEffect(() => {
    open.value = false
  }, [path])
  const query = adminPath('').slice('/admin'.length)
  return (
    <div class="section-nav">
      {branches.value.length > 1 && (
        <label class="field">
          {ts().admin.branch}
          <select
            value={branch.value?.code ?? ''}
            onChange={(e) => setQuery({ branch: e.currentTarget.value }, true)}
          >
            {branches.value.map((b) => (
              <option key={b.code} value={b.code}>
                {b.name}
              </option>
            ))}
          </select>
        </label>
      )}
      {/* Thirteen links are a long way to the content on a phone: there a button opens them. */}
      <button
        type="button"
        class="button section-toggle"
        aria-expanded={open.value}
        aria-controls="sections"
        onClick={() => (open.value = !open.value)}
      >
        <span>
          {ts().admin.section}: <b>{sections.find((s) => s.path === path)?.title(ts())}</b>
        </span>
        <span aria-hidden="true">{open.value ? '▴' : '▾'}</span>
      </button>
      <nav id="sections" class={open.value ? 'sections open' : 'sections'} aria-label={ts().admin.title}>
        {groups.map((g) => (
          <ul key={g.title(ts())} aria-label={g.title(ts())}>
            {g.sections.map((s) => (
              <li key={s.path}>
                <Link href={s.path + query}>{s.title(ts())}</Link>
              </li>
            ))}
          </ul>
        ))}
      </nav>
    </div>
  )
}
