import { computed, signal } from '@preact/signals'
import { api, call, type Schema } from '../api/client.ts'
import { observeServerTime } from './clock.ts'
import { readStored, writeStored } from './storage.ts'

export type Branch = Schema<'Branch'>

const key = 'dlsms.branches'

/** branches are all branches of the library; at first those of the last visit, for their names and zones. */
export const branches = signal<readonly Branch[]>(stored())

/** branchesFresh tells that the numbers of free seats are of this visit. */
export const branchesFresh = signal(false)

const byCode = computed(() => new Map(branches.value.map((b) => [b.code, b])))

/** branchOf returns a branch; undefined: it does not exist, or the branches are not loaded yet. */
export function branchOf(code: string | undefined): Branch | undefined {
  return byCode.value.get(code ?? '')
}

/** largest returns the branch with the most seats, which a page shows first. */
export function largest(all: readonly Branch[]): Branch | undefined {
  return [...all].sort((a, b) => b.seatCount - a.seatCount)[0]
}

/** zoneOf returns the time zone of a branch, and that of the device while the branch is not known. */
export function zoneOf(code: string | undefined): string {
  return branchOf(code)?.timezone ?? Intl.DateTimeFormat().resolvedOptions().timeZone
}

let loading: Promise<void> | undefined

/** loadBranches reads the branches and the numbers of their free seats. Calls at the same time share a request. */
export function loadBranches(): Promise<void> {
  loading ??= (async () => {
    try {
      const answer = await call(api.GET('/v1/branches'))
      observeServerTime(answer.asOf)
      branches.value = answer.branches
      branchesFresh.value = true
      writeStored(key, JSON.stringify(answer.branches))
    } finally {
      loading = undefined
    }
  })()
  return loading
}

function stored(): readonly Branch[] {
  try {
    const value: unknown = JSON.parse(readStored(key) ?? '[]')
    return Array.isArray(value) ? (value as Branch[]) : []
  } catch {
    return []
  }
}
