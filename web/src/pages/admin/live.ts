import { signal, type ReadonlySignal } from '@preact/signals'
import { useEffect, useRef } from 'preact/hooks'
import type { Schema } from '../../api/client.ts'
import { openStream } from '../../api/stream.ts'
import { observeServerTime } from '../../state/clock.ts'
import { watchConnection } from '../../ui/connection.tsx'

/** Counts are the seats of a branch at this moment. */
export interface Counts {
  free: number
  taken: number
  outOfService: number
}

/** Changes of this many milliseconds are counted together: a closure changes all seats of a branch at once. */
const pause = 400

/** A branch has several changes a second in its busy hours. onChange makes calls, so it has this distance. */
const distance = 3000 // milliseconds

/** useSpaced returns f for signals that may come often: the first runs it at once, later ones after a distance. */
export function useSpaced(f: () => void, milliseconds: number): () => void {
  const state = useRef<{ last: number; timer?: ReturnType<typeof setTimeout> | undefined }>({
    last: -milliseconds,
  })
  const latest = useRef(f)
  latest.current = f
  useEffect(() => () => clearTimeout(state.current.timer), [])
  return () => {
    const s = state.current
    s.timer ??= setTimeout(
      () => {
        s.timer = undefined
        s.last = performance.now()
        latest.current()
      },
      Math.max(0, s.last + milliseconds - performance.now()),
    )
  }
}

/**
 * useSeatStream follows the seats of a branch. It returns their counts, undefined before the first
 * snapshot, and calls onChange after changes and after each new connection.
 */
export function useSeatStream(branch: string, onChange: () => void): ReadonlySignal<Counts | undefined> {
  const counts = useRef(signal<Counts | undefined>(undefined)).current
  const signalChange = useSpaced(onChange, distance)
  useEffect(() => {
    const seats = new Map<string, Schema<'Seat'>>()
    let fresh = true // the next snapshot replaces the seats
    let first = true
    let timer: ReturnType<typeof setTimeout> | undefined
    const changed = (): void => {
      timer ??= setTimeout(() => {
        timer = undefined
        counts.value = count(seats.values())
        if (!first) signalChange()
        first = false
      }, pause)
    }
    const stream = openStream({
      url: () => `/v1/seats:watch?branch=${encodeURIComponent(branch)}`,
      onReopen: () => {
        fresh = true
      },
      onEvent: (name, data) => {
        const message = data as Schema<'WatchSeatsResponse'>
        observeServerTime(message.asOf)
        if (name === 'snapshot' && message.snapshot !== undefined) {
          if (fresh) seats.clear()
          fresh = message.snapshot.more !== true
          for (const s of message.snapshot.seats) seats.set(s.id, s)
          if (!fresh) return
        } else if (name === 'change' && message.change !== undefined) {
          seats.set(message.change.id, message.change)
        } else if (name === 'removed' && message.removed !== undefined) {
          seats.delete(message.removed.seatId)
        }
        changed()
      },
    })
    const forget = watchConnection(stream)
    return () => {
      clearTimeout(timer)
      stream.close()
      forget()
    }
  }, [branch])
  return counts
}

function count(seats: Iterable<Schema<'Seat'>>): Counts {
  const c = { free: 0, taken: 0, outOfService: 0 }
  for (const s of seats) {
    if (s.outOfService) c.outOfService++
    else if (s.available) c.free++
    else c.taken++
  }
  return c
}
