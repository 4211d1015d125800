import { computed } from '@preact/signals'
import { dateOf, clock, instant } from '../../i18n/time.ts'
import { here, setQuery } from '../../router.tsx'
import { branches, branchOf, largest, type Branch } from '../../state/branches.ts'
import { minute } from '../../state/clock.ts'
import { openAt, openDuring, opensNext, type Span } from '../../state/hours.ts'
import { read } from '../../state/preferences.ts'
import type { Amenity, Seat } from '../../state/seats.ts'
import { readStored, writeStored } from '../../state/storage.ts'

/** All that the user has chosen is in the query, so that back, reload and a link work. */

/** amenities are those of the filter, by their names in the query. */
export const amenities: Readonly<Record<string, Amenity>> = {
  power: 'AMENITY_POWER_OUTLET',
  monitor: 'AMENITY_MONITOR',
  wheelchair: 'AMENITY_WHEELCHAIR_ACCESSIBLE',
  standing: 'AMENITY_STANDING_DESK',
  window: 'AMENITY_WINDOW',
}

export interface Choice {
  /** Empty: the first branch. */
  branch: string
  /** Date and time of day in the branch's zone; both empty: now. */
  date: string
  start: string
  /** Minutes; 0: not chosen. */
  duration: number
  area: string
  needs: readonly string[]
  /** Whether the list shows taken seats, too. */
  all: boolean
  view: 'list' | 'map'
  /** Id of the seat whose sheet is open; empty: none. */
  seat: string
}

const lastBranch = 'dlsms.branch'
const lastView = 'dlsms.view'

let previous: Choice | undefined

/** choice is what the query says. On another page, it stays as it was. */
export const choice = computed<Choice>(() => {
  const { path, query } = here.value
  if (path !== '/' && previous !== undefined) return previous
  const view = query.get('view') ?? read(lastView, ['list', 'map'])
  const duration = Number(query.get('duration') ?? 0)
  return (previous = {
    branch: query.get('branch') ?? '',
    date: valid(query.get('date'), /^\d{4}-\d\d-\d\d$/, 'T00:00Z'),
    start: valid(query.get('start'), /^\d\d:\d\d$/, 'Z', '2000-01-01T'),
    duration: duration >= 1 && duration <= 1440 ? Math.floor(duration) : 0,
    area: query.get('area') ?? '',
    needs: (query.get('need') ?? '').split(',').filter((n) => Object.hasOwn(amenities, n)),
    all: query.get('taken') === '1',
    view: view === 'map' ? 'map' : 'list',
    seat: /^\d+$/.test(query.get('seat') ?? '') ? (query.get('seat') ?? '') : '',
  })
})

/** valid returns a date or a time of day if it exists; empty: it does not. */
function valid(text: string | null, form: RegExp, after: string, before = ''): string {
  if (text === null || !form.test(text)) return ''
  return Number.isNaN(Date.parse(before + text + after)) ? '' : text
}

/** branch is the branch that the page shows: that of the query, else the last one on this device, else the largest. */
export const branch = computed<Branch | undefined>(() => {
  const code = choice.value.branch
  if (code !== '') return branchOf(code)
  return branchOf(readStored(lastBranch) ?? '') ?? largest(branches.value)
})

/** zone is the time zone of the branch. */
export const zone = computed(() => branch.value?.timezone ?? 'UTC')

/** chooseBranch shows another branch. Areas and seats of the former one mean nothing there. */
export function chooseBranch(code: string): void {
  writeStored(lastBranch, code)
  setQuery({ branch: code, area: '', seat: '' })
}

/** chooseView shows the list or the map, and remembers it on this device. */
export function chooseView(view: 'list' | 'map'): void {
  writeStored(lastView, view)
  setQuery({ view }, true)
}

/** later tells that the user has chosen a time. */
export const later = computed(() => choice.value.date !== '' && choice.value.start !== '')

const span = computed<string>(() => {
  const { date, start, duration } = choice.value
  if (!later.value) return ''
  const from = instant(date, start, zone.value).getTime()
  return `${from} ${from + (duration || standard) * 60_000}`
})

/** The duration in minutes that a user gets without a choice. */
export const standard = 120

/** chosen is the window that the user has chosen; undefined: now. It changes only with its times. */
export const chosen = computed<Span | undefined>(() => {
  if (span.value === '') return undefined
  const [from = 0, to = 0] = span.value.split(' ').map(Number)
  return { from, to }
})

/** passed tells that the chosen window has ended, or has begun more than a minute ago. */
export const passed = computed(() => chosen.value !== undefined && chosen.value.from < minute.value - 60_000)

/** open tells whether the branch is open now, or during the whole chosen window. */
export const open = computed(() => {
  const b = branch.value
  if (b === undefined) return true
  return chosen.value === undefined ? openAt(b, minute.value) !== undefined : openDuring(b, chosen.value)
})

/** closesAt is the end of the opening now, or of that of the chosen window; Infinity: the branch does not close. */
export const closesAt = computed(() => {
  const b = branch.value
  return (b === undefined ? undefined : openAt(b, chosen.value?.from ?? minute.value)?.to) ?? Infinity
})

/** The closures of the branch that hold now, or in the chosen window. */
const closing = computed(() => {
  const { from, to } = chosen.value ?? { from: minute.value, to: minute.value + 60_000 }
  return (branch.value?.closures ?? [])
    .filter(
      (c) => Date.parse(c.startTime ?? '') < to && (c.endTime === undefined || Date.parse(c.endTime) > from),
    )
    .map((c) => c.id)
    .join()
})

/** closures are the closures of the branch that hold now, or in the chosen window. */
export const closures = computed(() => {
  const ids = closing.value.split(',')
  return (branch.value?.closures ?? []).filter((c) => ids.includes(c.id))
})

/** closedSeat tells whether the library has closed a seat, or its area, or the branch. */
export function closedSeat(s: Seat): boolean {
  if (!open.value) return true
  return closures.value.some((c) =>
    c.seatIds.length > 0 ? c.seatIds.includes(s.id) : c.area === '' || c.area === s.area,
  )
}

/** matches tells whether a seat is one that the filter wants. */
export function matches(s: Seat): boolean {
  const { area, needs } = choice.value
  return (area === '' || s.area === area) && needs.every((n) => s.amenities.includes(amenities[n] as Amenity))
}

/** chooseLater proposes a time: the next full half hour at which the branch is open. */
export function chooseLater(): void {
  const b = branch.value
  const half = 30 * 60_000
  let at = Math.ceil((minute.value + 1) / half) * half
  if (b !== undefined && openAt(b, at) === undefined) at = opensNext(b, at) ?? at
  setQuery({
    date: dateOf(at, zone.value),
    start: clock(at, zone.value),
    duration: String(choice.value.duration || standard),
  })
}

/** chooseNow shows the present state. */
export function chooseNow(): void {
  setQuery({ date: '', start: '' })
}

/** openSeat opens the sheet of a seat. Going back closes it, so the history remembers that it was opened here. */
export function openSeat(id: string): void {
  if (choice.peek().seat !== '') return switchSeat(id)
  setQuery({ seat: id })
  history.replaceState({ sheet: true }, '')
}

/** switchSeat shows another seat in the open sheet. */
export function switchSeat(id: string): void {
  const state: unknown = history.state
  setQuery({ seat: id }, true)
  history.replaceState(state, '')
}

/** closeSeat closes the sheet: back to where it was opened, if that was on this page. */
export function closeSeat(): void {
  if ((history.state as { sheet?: boolean } | null)?.sheet === true) history.back()
  else setQuery({ seat: '' }, true)
}
