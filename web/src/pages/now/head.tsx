import { computed } from '@preact/signals'
import type { JSX } from 'preact'
import { byLanguage, t } from '../../i18n/text.ts'
import { addDays, clock, dateOf, day, dayAndClock } from '../../i18n/time.ts'
import { setQuery } from '../../router.tsx'
import { branches, loadBranches, type Branch } from '../../state/branches.ts'
import { minute } from '../../state/clock.ts'
import { openAt, openSpans, opensNext } from '../../state/hours.ts'
import { allSeats, ready, roster } from '../../state/seats.ts'
import { AmenityIcon } from '../../ui/amenity.tsx'
import { Field } from '../../ui/field.tsx'
import {
  amenities,
  branch,
  choice,
  chooseBranch,
  chooseLater,
  chooseNow,
  chooseView,
  chosen,
  later,
  open,
  passed,
  standard,
  zone,
} from './choice.ts'
import { counts } from './list.tsx'

/** BranchChoice chooses the branch, unless the library has only one. */
export function BranchChoice(): JSX.Element | null {
  const n = t().now
  const b = branch.value
  if (branches.value.length < 2) return null
  const refresh = (): void => void loadBranches().catch(() => {})
  return (
    <select
      class="branch"
      aria-label={n.branch}
      value={b?.code ?? ''}
      onPointerDown={refresh}
      onFocus={refresh}
      onChange={(e) => chooseBranch(e.currentTarget.value)}
    >
      {branches.value.map((other) => (
        <option key={other.code} value={other.code}>
          {/* The number is that of now. */}
          {later.value ? other.name : n.branchOption(other.name, other.availableCount)}
        </option>
      ))}
    </select>
  )
}

/** TimeChoice chooses now or a time. */
export function TimeChoice(): JSX.Element {
  const n = t().now
  const { date, start, duration } = choice.value
  const today = dateOf(minute.value, zone.value)
  const set = (values: Record<string, string>): void => setQuery(values, true)
  return (
    <>
      <div class="chips" role="group" aria-label={n.when}>
        <button type="button" class="chip" aria-pressed={!later.value} onClick={chooseNow}>
          {n.atNow}
        </button>
        <button
          type="button"
          class="chip"
          aria-pressed={later.value}
          onClick={() => !later.value && chooseLater()}
        >
          {n.atLater}
        </button>
      </div>
      {later.value && (
        <div class="times" role="group" aria-label={n.atLater}>
          <Field label={n.date}>
            {(a) => (
              <input
                {...a}
                type="date"
                value={date}
                min={today}
                max={addDays(today, 400)}
                required
                onChange={(e) => e.currentTarget.value !== '' && set({ date: e.currentTarget.value })}
              />
            )}
          </Field>
          <Field label={n.start}>
            {(a) => (
              <input
                {...a}
                type="time"
                value={start}
                step={300}
                required
                onChange={(e) =>
                  e.currentTarget.value !== '' && set({ start: e.currentTarget.value.slice(0, 5) })
                }
              />
            )}
          </Field>
          <Field label={n.duration}>
            {(a) => (
              <select
                {...a}
                value={String(duration || standard)}
                onChange={(e) => set({ duration: e.currentTarget.value })}
              >
                {durations(duration).map((d) => (
                  <option key={d} value={String(d)}>
                    {durationText(d)}
                  </option>
                ))}
              </select>
            )}
          </Field>
        </div>
      )}
      {passed.value && (
        <p class="field-fault passed" role="status">
          {n.passed}
        </p>
      )}
    </>
  )
}

function durations(own: number): number[] {
  const all = [30, 60, 90, 120, 180, 240, 300, 360, 480, 600, 720]
  return own > 0 && !all.includes(own) ? [...all, own].sort((a, b) => a - b) : all
}

/** durationText returns a number of minutes, such as 1 h 30 min. */
export function durationText(minutes: number): string {
  return t().now.hoursMinutes(Math.floor(minutes / 60), Math.round(minutes % 60))
}

/** offered are the amenities that at least one seat of the branch has: the others are no choice. */
const offered = computed(() => {
  void roster.value
  return new Set(allSeats().flatMap((s) => s.amenities))
})

/** Filters are the chips of the filter. Areas are a choice of one, amenities of several. */
export function Filters(): JSX.Element {
  const n = t().now
  const { area, needs, all, view } = choice.value
  const toggle = (need: string): void => {
    const next = needs.includes(need) ? needs.filter((other) => other !== need) : [...needs, need]
    setQuery({ need: next.join(',') }, true)
  }
  return (
    <div class="chips filters" role="group" aria-label={n.filter}>
      {(branch.value?.areas.length ?? 0) > 1 && (
        <select
          class="chip"
          aria-label={n.area}
          value={area}
          onChange={(e) => setQuery({ area: e.currentTarget.value }, true)}
        >
          <option value="">{n.allAreas}</option>
          {branch.value?.areas.map((a) => (
            <option key={a} value={a}>
              {a}
            </option>
          ))}
        </select>
      )}
      <button
        type="button"
        class={`chip for-${view}`}
        aria-pressed={all}
        onClick={() => setQuery({ taken: all ? '' : '1' }, true)}
      >
        {n.alsoTaken}
      </button>
      {Object.entries(amenities)
        .filter(([need, amenity]) => offered.value.has(amenity) || needs.includes(need))
        .map(([need, amenity]) => (
          <button
            key={need}
            type="button"
            class="chip"
            aria-pressed={needs.includes(need)}
            onClick={() => toggle(need)}
          >
            <AmenityIcon amenity={amenity} />
            {t().common.amenity[amenity]}
          </button>
        ))}
    </div>
  )
}

/** ViewChoice chooses list or map, where there is no room for both. */
export function ViewChoice(): JSX.Element {
  const n = t().now
  const { view } = choice.value
  return (
    <div class="chips views" role="group" aria-label={n.view}>
      <button type="button" class="chip" aria-pressed={view === 'list'} onClick={() => chooseView('list')}>
        {n.list}
      </button>
      <button type="button" class="chip" aria-pressed={view === 'map'} onClick={() => chooseView('map')}>
        {n.map}
      </button>
    </div>
  )
}

/** Summary is the number of free seats, the opening, closures and the announcement. */
export function Summary(): JSX.Element | null {
  const n = t().now
  const b = branch.value
  if (b === undefined) return null
  const { free, total } = counts.value
  const announcement = byLanguage(b.announcement)
  const others = branches.value.filter((o) => o.code !== b.code && o.availableCount > 0)
  return (
    <div class="summary">
      {announcement !== '' && <p class="announcement">{announcement}</p>}
      <p class="row">
        {ready.value && <strong class="count">{n.freeOf(free, total)}</strong>}
        <span class={open.value ? 'opening' : 'opening shut'}>{opening(b)}</span>
      </p>
      <Notices of={b} />
      {ready.value && free === 0 && chosen.value === undefined && others.length > 0 && (
        <p class="row">
          {n.elsewhere}
          {others.slice(0, 3).map((o) => (
            <button key={o.code} type="button" class="chip" onClick={() => chooseBranch(o.code)}>
              {n.branchOption(o.name, o.availableCount)}
            </button>
          ))}
        </p>
      )}
    </div>
  )
}

/** opening returns whether a branch is open now, or on the chosen day. */
function opening(b: Branch): string {
  const n = t().now
  if (chosen.value !== undefined) {
    const date = dateOf(chosen.value.from, b.timezone)
    const spans = openSpans(b, date).map((s) =>
      t().common.span(clock(s.from, b.timezone), endClock(s.to, b.timezone)),
    )
    const name = day(chosen.value.from, b.timezone)
    if (openAt(b, chosen.value.from)?.to === Infinity) return n.openAlways
    const text = spans.length > 0 ? n.openOn(name, spans.join(', ')) : n.closedOn(name)
    return open.value ? text : `${text}. ${n.closedThen}`
  }
  const now = openAt(b, minute.value)
  if (now !== undefined)
    return now.to === Infinity ? n.openAlways : n.openUntil(dayAndClock(now.to, b.timezone))
  const next = opensNext(b, minute.value)
  return next === undefined ? n.closed : n.closedOpens(dayAndClock(next, b.timezone))
}

function endClock(at: number, zone: string): string {
  const text = clock(at, zone)
  return text === '00:00' ? '24:00' : text
}

/** Notices are the special days of the next week, and the closures of now and the next week. */
function Notices({ of: b }: { of: Branch }): JSX.Element | null {
  const n = t().now
  const z = b.timezone
  const at = chosen.value?.from ?? minute.value
  const horizon = at + 7 * 86_400_000
  const days = b.specialDays.filter((d) => d.day >= dateOf(minute.value, z) && d.day <= dateOf(horizon, z))
  const closures = b.closures.filter((c) => Date.parse(c.startTime ?? '') < horizon)
  if (days.length + closures.length === 0) return null
  return (
    <ul class="closures">
      {closures.map((c) => {
        const what =
          c.area !== '' ? c.area : c.seatIds.length > 0 ? n.closureSeats(c.seatIds.length) : n.closureBranch
        const from = dayAndClock(c.startTime ?? 0, z)
        const running = Date.parse(c.startTime ?? '') < minute.value + 60_000
        const to = c.endTime === undefined ? undefined : dayAndClock(c.endTime, z)
        const time =
          to === undefined
            ? running
              ? n.closureOpen
              : from
            : running
              ? t().common.until(to)
              : t().common.span(from, to)
        const note = byLanguage(c.note)
        return (
          <li key={c.id}>
            {n.closure(what, time)}
            {note !== '' && `. ${note}`}
          </li>
        )
      })}
      {days.map((d) => {
        const noon = `${d.day}T12:00:00Z`
        const spans = openSpans(b, d.day).map((s) => t().common.span(clock(s.from, z), endClock(s.to, z)))
        return (
          <li key={d.day}>
            {d.hours.length > 0 ? n.openOn(day(noon, 'UTC'), spans.join(', ')) : n.closedOn(day(noon, 'UTC'))}
          </li>
        )
      })}
    </ul>
  )
}
