import { useSignal } from '@preact/signals'
import { useEffect } from 'preact/hooks'
import type { ComponentType, JSX } from 'preact'
import { t, ts, type StaffText } from '../../i18n/text.ts'
import { here, Link, setQuery } from '../../router.tsx'
import { asProblem, type Problem } from '../../api/problem.ts'
import { Fault } from '../../ui/problem.tsx'
import { branch, branches, loadBranches } from './branch.ts'

interface Section {
  path: string
  title: (s: StaffText) => string
  load: () => Promise<{ Section: ComponentType }>
}

/** The sections of the page, each a chunk of its own. */
const sections: Section[] = [
  { path: '/admin', title: (s) => s.admin.today, load: () => import('./today.tsx') },
  { path: '/admin/seats', title: (s) => s.seats.title, load: () => import('./seats.tsx') },
  { path: '/admin/map', title: (s) => s.seats.map, load: () => import('./map.tsx') },
  { path: '/admin/import', title: (s) => s.seats.import, load: () => import('./import.tsx') },
  { path: '/admin/labels', title: (s) => s.seats.labels, load: () => import('./labels.tsx') },
  { path: '/admin/screens', title: (s) => s.seats.screens, load: () => import('./screens.tsx') },
  { path: '/admin/hours', title: (s) => s.hours.title, load: () => import('./hours.tsx') },
  { path: '/admin/closures', title: (s) => s.hours.closures, load: () => import('./closures.tsx') },
  { path: '/admin/policies', title: (s) => s.policies.title, load: () => import('./policies.tsx') },
  { path: '/admin/announcement', title: (s) => s.admin.announcement, load: () => import('./announcement.tsx') },
  { path: '/admin/people', title: (s) => s.people.title, load: () => import('./people.tsx') },
  { path: '/admin/reports', title: (s) => s.reports.title, load: () => import('./reports.tsx') },
  { path: '/admin/audit', title: (s) => s.admin.audit, load: () => import('./audit.tsx') },
]

/** View is the page of librarians and admins: a branch, and the section of it that the path names. */
export function View({ path }: { path: string }): JSX.Element {
  const section = sections.find((s) => s.path === path)
  const problem = useSignal<Problem | undefined>(undefined)
  const shown = useSignal<{ path: string; Section: ComponentType } | undefined>(undefined)
  useEffect(() => {
    loadBranches().catch((e: unknown) => {
      problem.value = asProblem(e)
    })
  }, [])
  useEffect(() => {
    let current = true
    section?.load().then((m) => {
      if (current) shown.value = { path, Section: m.Section }
    })
    return () => {
      current = false
    }
  }, [path])
  const chosen = branch.value
  return (
    <>
      <h1>{section?.title(ts()) ?? t().common.notFoundTitle}</h1>
      <div class="admin-layout">
        <div>
          {branches.value.length > 1 && (
            <label class="field">
              {ts().admin.branch}
              <select value={chosen?.code ?? ''} onChange={(e) => setQuery({ branch: e.currentTarget.value }, true)}>
                {branches.value.map((b) => <option key={b.code} value={b.code}>{b.name}</option>)}
              </select>
            </label>
          )}
          <nav class="sections" aria-label={ts().admin.title}>
            {sections.map((s) => <Link key={s.path} href={s.path + keepBranch()}>{s.title(ts())}</Link>)}
          </nav>
        </div>
        <div class="section">
          <Fault problem={problem.value} />
          {shown.value?.path === path && chosen !== undefined && <shown.value.Section key={path + chosen.code} />}
        </div>
      </div>
    </>
  )
}

function keepBranch(): string {
  const code = here.value.query.get('branch')
  return code === null ? '' : `?branch=${encodeURIComponent(code)}`
}
