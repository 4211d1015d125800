import { computed, signal } from '@preact/signals'
import { api, call, type Schema } from '../../api/client.ts'
import { here } from '../../router.tsx'

/** branches are the branches in the scope of the user, with all their settings. */
export const branches = signal<readonly Schema<'BranchSettings'>[]>([])

/** branch is the branch that the page shows: that of the query `branch`, else the first one. */
export const branch = computed(() => {
  const code = here.value.query.get('branch')
  return branches.value.find((b) => b.code === code) ?? branches.value[0]
})

/** loadBranches reads the branches, for example after a change. */
export async function loadBranches(): Promise<void> {
  branches.value = (await call(api.GET('/v1/admin/branches'))).branches
}

/** adminPath returns the address of a section for the chosen branch. */
export function adminPath(section: string, query: Record<string, string> = {}): string {
  const q = new URLSearchParams(query)
  const code = here.value.query.get('branch')
  if (code !== null) q.set('branch', code)
  const text = q.toString()
  return '/admin' + (section === '' ? '' : `/${section}`) + (text === '' ? '' : `?${text}`)
}
