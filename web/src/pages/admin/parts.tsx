import { useSignal, type Signal } from '@preact/signals'
import { useEffect, useId, useRef } from 'preact/hooks'
import type { ComponentChildren, JSX } from 'preact'
import { asProblem, type Problem } from '../../api/problem.ts'
import { t, ts } from '../../i18n/text.ts'
import { clock, dateOf, day, instant, weekdayName } from '../../i18n/time.ts'
import { Fault } from '../../ui/problem.tsx'

/** Loaded is something that a section reads from the API. */
export interface Loaded<T> {
  data: Signal<T | undefined>
  problem: Signal<Problem | undefined>
  reload: () => Promise<void>
}

/** useLoaded reads something when the section is shown, when `key` changes, and when the tab is shown again. */
export function useLoaded<T>(read: () => Promise<T>, key = ''): Loaded<T> {
  const data = useSignal<T | undefined>(undefined)
  const problem = useSignal<Problem | undefined>(undefined)
  const latest = useRef({ read, call: 0 })
  latest.current.read = read
  const reload = async (): Promise<void> => {
    const call = ++latest.current.call // an answer that a later one has overtaken is dropped
    try {
      const answer = await latest.current.read()
      if (call !== latest.current.call) return
      data.value = answer
      problem.value = undefined
    } catch (e) {
      if (call === latest.current.call) problem.value = asProblem(e)
    }
  }
  useEffect(() => {
    void reload()
    const shown = (): void => {
      if (document.visibilityState === 'visible') void reload()
    }
    document.addEventListener('visibilitychange', shown)
    return () => {
      document.removeEventListener('visibilitychange', shown)
      latest.current.call++
    }
  }, [key])
  return { data, problem, reload }
}

interface WaitProps<T> {
  of: Loaded<T>
  zone?: string
  children: (data: T) => ComponentChildren
}

/** Wait shows what was loaded, or that it loads, or why it cannot be loaded. */
export function Wait<T>({ of, zone = 'UTC', children }: WaitProps<T>): JSX.Element {
  const data = of.data.value
  const loading = data === undefined && of.problem.value === undefined
  return (
    <>
      <Fault problem={of.problem.value} zone={zone} />
      {data !== undefined && children(data)}
      {loading && (
        <p class="loading" role="status">
          {t().common.loading}
        </p>
      )}
    </>
  )
}

/** focusTitle moves the focus to the heading of the section, because the form that had it is closed. */
export function focusTitle(): void {
  document.querySelector<HTMLElement>('.section h1')?.focus()
}

/** Moment is a date and a time of day as a user enters them, in the zone of the branch. */
export interface Moment {
  date: string
  time: string
}

/** momentOf returns the moment of a time. */
export function momentOf(time: Date | string | number, zone: string): Moment {
  return { date: dateOf(time, zone), time: clock(time, zone) }
}

/** timeOf returns the time of a moment in RFC 3339; undefined: the moment is not complete. */
export function timeOf(m: Moment, zone: string): string | undefined {
  if (m.date === '' || m.time === '') return undefined
  return instant(m.date, m.time, zone).toISOString()
}

interface MomentFieldProps {
  label: string
  value: Moment
  onChange: (m: Moment) => void
  fault?: string | undefined
  hint?: string | undefined
}

/** MomentField edits a date and a time of day. */
export function MomentField({ label, value, onChange, fault, hint }: MomentFieldProps): JSX.Element {
  const id = useId()
  const described = [hint && `${id}-hint`, fault && `${id}-fault`].filter(Boolean).join(' ') || undefined
  const invalid = fault === undefined ? undefined : true
  return (
    <fieldset class="moment" aria-describedby={described}>
      <legend>{label}</legend>
      <div class="row">
        <input
          type="date"
          aria-label={`${label}: ${ts().admin.date}`}
          aria-invalid={invalid}
          required
          value={value.date}
          onInput={(e) => onChange({ ...value, date: e.currentTarget.value })}
        />
        <input
          type="time"
          aria-label={`${label}: ${ts().admin.time}`}
          aria-invalid={invalid}
          required
          value={value.time}
          onInput={(e) => onChange({ ...value, time: e.currentTarget.value })}
        />
      </div>
      {hint && <small id={`${id}-hint`}>{hint}</small>}
      {fault && (
        <small class="field-fault" id={`${id}-fault`}>
          {fault}
        </small>
      )}
    </fieldset>
  )
}

/** spanText returns a span of time, such as Tue 2 Dec, 08:00–12:00. Without an end it is open. */
export function spanText(from: string | undefined, to: string | undefined, zone: string): string {
  const start = from === undefined ? '' : `${day(from, zone)}, ${clock(from, zone)}`
  if (to === undefined) return ts().admin.noEnd(start)
  // A span until midnight ends on its own day.
  const until = `${day(to, zone)}, ${clock(to, zone)}`
  if (from !== undefined && dateOf(from, zone) === dateOf(Date.parse(to) - 1, zone)) {
    return `${start}–${clock(to, zone) === '00:00' ? '24:00' : clock(to, zone)}`
  }
  return `${start} – ${until}`
}

/** dateText returns a date (YYYY-MM-DD) as a user reads it, such as Tue 2 Dec. */
export function dateText(date: string): string {
  return day(date + 'T12:00:00Z', 'UTC')
}

/** WeekdayHeads are the heads of columns for days of the week: 1 is Monday. */
export function WeekdayHeads({ weekdays }: { weekdays: readonly number[] }): JSX.Element {
  return (
    <>
      {weekdays.map((d) => (
        <th key={d} scope="col">
          <abbr title={weekdayName(d)}>{weekdayName(d, 'short')}</abbr>
        </th>
      ))}
    </>
  )
}
