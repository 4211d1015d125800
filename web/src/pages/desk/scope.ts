import { computed } from '@preact/signals'
import { useEffect, useRef } from 'preact/hooks'
import type { Schema } from '../../api/client.ts'
import { openStream } from '../../api/stream.ts'
import { here, setQuery } from '../../router.tsx'
import { branches, largest } from '../../state/branches.ts'
import { account } from '../../state/session.ts'
import { readStored, writeStored } from '../../state/storage.ts'
import { watchConnection } from '../../ui/connection.tsx'

/** scope are the branches in which the member of staff may act. */
export const scope = computed(() => {
  const own = account.value?.branches ?? []
  return own.length === 0 ? branches.value : branches.value.filter((b) => own.includes(b.code))
})

const remembered = 'dlsms.desk'

/**
 * branch is the branch of the desk: that of the query `branch`, also if the role does not include it,
 * else the one that this device has shown last, else the largest.
 */
export const branch = computed(() => {
  const code = here.value.query.get('branch')
  const last = readStored(remembered)
  return (
    branches.value.find((b) => b.code === code) ??
    scope.value.find((b) => b.code === last) ??
    largest(scope.value)
  )
})

/** chooseBranch shows another branch, now and at the next visit. */
export function chooseBranch(code: string): void {
  writeStored(remembered, code)
  setQuery({ branch: code })
}

/** nameOf returns the name of a branch. */
export function nameOf(code: string | undefined): string {
  return branches.value.find((b) => b.code === code)?.name ?? code ?? ''
}

export type Arrival = Schema<'AffectedReservation'>

/**
 * useArrivals follows the reservations of a branch on a day. It calls start when the list must be read,
 * and change with the reservations that have changed since.
 */
export function useArrivals(
  code: string | undefined,
  day: string,
  start: () => void,
  change: (changed: readonly Arrival[]) => void,
): void {
  const latest = useRef({ start, change })
  latest.current = { start, change }
  useEffect(() => {
    if (code === undefined) return
    const query = new URLSearchParams({ branch: code, day })
    const stream = openStream({
      url: () => `/v1/desk/arrivals:watch?${query}`,
      onEvent: (name, data) => {
        const message = data as Schema<'WatchArrivalsResponse'>
        if (name === 'started') latest.current.start()
        if (message.change !== undefined) latest.current.change(message.change.reservations)
      },
    })
    const forget = watchConnection(stream)
    return () => {
      forget()
      stream.close()
    }
  }, [code, day])
}
