import { computed } from '@preact/signals'
import { useEffect, useRef } from 'preact/hooks'
import type { Schema } from '../../api/client.ts'
import { openStream } from '../../api/stream.ts'
import { here, setQuery } from '../../router.tsx'
import { branches } from '../../state/branches.ts'
import { account } from '../../state/session.ts'
import { watchConnection } from '../../ui/connection.tsx'

/** scope are the branches in which the member of staff may act. */
export const scope = computed(() => {
  const own = account.value?.branches ?? []
  return own.length === 0 ? branches.value : branches.value.filter((b) => own.includes(b.code))
})

const remembered = 'dlsms.desk'

/**
 * branch is the branch of the desk: that of the query `branch`, also if the role does not include it,
 * else the one that this device has shown last, else the first one.
 */
export const branch = computed(() => {
  const code = here.value.query.get('branch')
  const last = localStorage.getItem(remembered)
  return (
    branches.value.find((b) => b.code === code) ?? scope.value.find((b) => b.code === last) ?? scope.value[0]
  )
})

/** chooseBranch shows another branch, now and at the next visit. */
export function chooseBranch(code: string): void {
  localStorage.setItem(remembered, code)
  setQuery({ branch: code })
}

/** nameOf returns the name of a branch. */
export function nameOf(code: string | undefined): string {
  return branches.value.find((b) => b.code === code)?.name ?? code ?? ''
}

const soon = 300 // milliseconds: changes at the same time cause one call
const rest = 2000 // milliseconds between two calls in a busy branch, because a user has a limit of calls

/**
 * useChanges calls f soon after something has happened at the seats of a branch, and after the
 * connection was lost. With seats, only their changes count.
 */
export function useChanges(code: string | undefined, f: () => void, seats?: ReadonlySet<string>): void {
  const latest = useRef({ f, seats })
  latest.current = { f, seats }
  useEffect(() => {
    if (code === undefined) return
    let timer: ReturnType<typeof setTimeout> | undefined
    let last = -rest
    const changed = (): void => {
      timer ??= setTimeout(
        () => {
          timer = undefined
          last = performance.now()
          latest.current.f()
        },
        Math.max(soon, last + rest - performance.now()),
      )
    }
    const stream = openStream({
      url: () => `/v1/seats:watch?branch=${encodeURIComponent(code)}`,
      onReopen: changed,
      onEvent: (_, data) => {
        const { change, removed } = data as Schema<'WatchSeatsResponse'>
        const id = change?.id ?? removed?.seatId
        if (id !== undefined && (latest.current.seats?.has(id) ?? true)) changed()
      },
    })
    const forget = watchConnection(stream)
    return () => {
      clearTimeout(timer)
      forget()
      stream.close()
    }
  }, [code])
}
