import type { Schema } from '../../../api/client.ts'
import { ts } from '../../../i18n/text.ts'
import { account, isAdmin } from '../../../state/session.ts'
import { branches } from '../branch.ts'

type Policy = Schema<'Policy'>

/** mayLibrary tells whether the user may set a policy for the whole library: staff of all branches may. */
export function mayLibrary(): boolean {
  return isAdmin.value || account.value?.branches.length === 0
}

/** scopeName returns where, for whom and when a policy holds. */
export function scopeName(p: Policy): string {
  const text = ts().policies
  const branch = branches.value.find((b) => b.code === p.branch)?.name ?? p.branch
  const place = p.branch ? (p.area ? `${branch}: ${p.area}` : branch) : text.library
  return p.group ? text.forGroup(place ?? '', p.group) : (place ?? '')
}
