import { computed, effect, signal, untracked } from '@preact/signals'
import type { JSX } from 'preact'
import { Sign } from '../../map/mark.tsx'
import { t } from '../../i18n/text.ts'
import { setQuery } from '../../router.tsx'
import { allSeats, lastChanges, plan, pulse, ready, roster, seat, settling } from '../../state/seats.ts'
import { Amenities } from '../../ui/amenity.tsx'
import { choice, chooseLater, chosen, matches, open } from './choice.ts'
import { lookOf, mineAt, nameOf, words } from './look.ts'

/**
 * The seats that the list shows although the filter wants free ones: a seat that was free when the
 * user saw it keeps its place when it is taken, so that no row moves under a finger.
 */
let kept = new Set<string>()
const grown = signal(0)

/** begin changes when the user asks for another list. */
const wanted = computed(() => {
  const { branch, date, start, duration, all, area, needs } = choice.value
  return JSON.stringify([branch, date, start, duration, all, area, needs, roster.value, settling.value])
})

effect(() => {
  void wanted.value
  untracked(() => {
    kept = new Set(allSeats().filter((s) => s.available).map((s) => s.id))
    grown.value++
  })
})

effect(() => {
  void pulse.value
  untracked(() => {
    const before = kept.size
    for (const { after } of lastChanges) if (after?.available === true) kept.add(after.id)
    if (kept.size !== before) grown.value++
  })
})

interface Group {
  area: string
  ids: readonly string[]
}

/** groups are the seats of the list by area, in the order of the plan. */
const groups = computed<readonly Group[]>(() => {
  void roster.value
  void grown.value
  const { all } = choice.value
  const found = new Map<string, string[]>()
  for (const id of plan.value.order) {
    const s = seat(id)?.peek()
    if (s === undefined || !matches(s)) continue
    if (!all && !kept.has(id) && mineAt(id) === undefined) continue
    const group = found.get(s.area)
    if (group === undefined) found.set(s.area, [id])
    else group.push(id)
  }
  return Array.from(found, ([area, ids]) => ({ area, ids }))
})

/** counts are the free and all seats of the filter, in all and by area. */
export const counts = computed(() => {
  void pulse.value
  const areas = new Map<string, { free: number; total: number }>()
  let free = 0
  let total = 0
  for (const s of allSeats()) {
    if (!matches(s)) continue
    const a = areas.get(s.area) ?? { free: 0, total: 0 }
    areas.set(s.area, a)
    a.total++
    total++
    if (!s.available) continue
    a.free++
    free++
  }
  return { free, total, areas }
})

/** SeatList is the list of the seats of the store. It is the truth; the map is a view of it. */
export function SeatList({ onOpen }: { onOpen: (id: string) => void }): JSX.Element | null {
  if (!ready.value) return null
  const all = groups.value
  if (all.length === 0) return <Empty />
  return (
    <div
      class="seat-list"
      aria-busy={settling.value}
      onClick={(e) => {
        const id = (e.target as Element).closest('[data-id]')?.getAttribute('data-id')
        if (id) onOpen(id)
      }}
    >
      {all.map((g) => (
        <section key={g.area} style={{ '--rows': String(g.ids.length) }} aria-label={g.area}>
          <h2>{g.area} <AreaCount area={g.area} /></h2>
          <ul class="seats">{g.ids.map((id) => <SeatRow key={id} id={id} />)}</ul>
        </section>
      ))}
    </div>
  )
}

function AreaCount({ area }: { area: string }): JSX.Element | null {
  const c = counts.value.areas.get(area)
  return c === undefined ? null : <small>{t().now.freeOfShort(c.free, c.total)}</small>
}

/** SeatRow is one seat. It is drawn again only when this seat changes. */
function SeatRow({ id }: { id: string }): JSX.Element | null {
  const s = seat(id)?.value
  if (s === undefined) return null
  const look = lookOf(s)
  return (
    <li>
      <button type="button" class={`seat-row ${look}`} data-id={id} aria-label={nameOf(s)}>
        <Sign look={look} />
        <strong>{s.label}</strong>{' '}
        <span class="words">{words(s)}</span>{' '}
        <Amenities of={s.amenities} />
      </button>
    </li>
  )
}

function Empty(): JSX.Element {
  const n = t().now
  const { total, free } = counts.value
  const { all, area, needs } = choice.value
  const filtered = area !== '' || needs.length > 0
  return (
    <div class="card empty">
      <p>{allSeats().length === 0 ? n.noSeats : total === 0 ? n.noMatch : open.value ? n.noFree : chosen.value === undefined ? n.closed : n.closedThen}</p>
      <p class="row">
        {!open.value && chosen.value === undefined && <button type="button" class="button main" onClick={chooseLater}>{n.changeTime}</button>}
        {total > 0 && free === 0 && !all && (
          <button type="button" class={open.value ? 'button main' : 'button'} onClick={() => setQuery({ taken: '1' }, true)}>{n.alsoTaken}</button>
        )}
        {filtered && <button type="button" class="button" onClick={() => setQuery({ area: '', need: '' })}>{n.resetFilter}</button>}
      </p>
    </div>
  )
}
