import type { Schema } from '../../../api/client.ts'
import { ts } from '../../../i18n/text.ts'
import { branches } from '../branch.ts'

type Policy = Schema<'Policy'>

/** scopeName returns where, for whom and when a policy holds. */
export function scopeName(p: Policy): string {
  const text = ts().policies
  const branch = branches.value.find((b) => b.code === p.branch)?.name ?? p.branch
  const place = p.branch ? (p.area ? `${branch}: ${p.area}` : branch) : text.library
  return p.group ? text.forGroup(place ?? '', p.group) : (place ?? '')
}
