import { useEffect, useRef } from 'preact/hooks'
import type { JSX } from 'preact'
import type { Schema } from '../../../api/client.ts'
import { language, t, ts } from '../../../i18n/text.ts'
import { addDays, longDay, weekdayOf } from '../../../i18n/time.ts'
import { WeekdayHeads } from '../parts.tsx'
import { spansText } from './spans.tsx'

/** Range is a range of dates, both included. */
export interface Range {
  from: string
  to: string
}

interface CalendarProps {
  /** exceptions are the dates with their own hours. */
  exceptions: readonly Schema<'DayHours'>[]
  today: string
  selected: Range
  /** focus is the date that the keyboard is at; its month is shown. */
  focus: string
  onMove: (date: string) => void
  onSelect: (r: Range) => void
}

/** firstOf returns the first date of the month of a date. */
function firstOf(date: string): string {
  return date.slice(0, 8) + '01'
}

/** addMonths returns the same day of another month, or its last day. */
export function addMonths(date: string, months: number): string {
  const [year = 0, month = 1, day = 1] = date.split('-').map(Number)
  const last = new Date(Date.UTC(year, month + months, 0)).getUTCDate()
  return new Date(Date.UTC(year, month - 1 + months, Math.min(day, last))).toISOString().slice(0, 10)
}

/** weeksOf returns the weeks of the month of a date, from Monday to Sunday. */
function weeksOf(date: string): string[][] {
  const first = firstOf(date)
  const end = addMonths(first, 1)
  const weeks: string[][] = []
  for (let day = addDays(first, 1 - weekdayOf(first)); day < end; day = addDays(day, 7)) {
    weeks.push(Array.from({ length: 7 }, (_, i) => addDays(day, i)))
  }
  return weeks
}

/** ordered returns the range between two dates. */
function ordered(a: string, b: string): Range {
  return a <= b ? { from: a, to: b } : { from: b, to: a }
}

/**
 * Calendar is the grid of a month. Arrow keys move by a day or a week, Page Up and Page Down by a
 * month, Home and End to the ends of the week. Enter selects a date, and with Shift, keys and clicks
 * extend the selection.
 */
export function Calendar({
  exceptions,
  today,
  selected,
  focus,
  onMove,
  onSelect,
}: CalendarProps): JSX.Element {
  const text = ts().hours
  const grid = useRef<HTMLTableElement>(null)
  const anchor = useRef(focus)
  const byKeyboard = useRef(false)
  const own = new Map(exceptions.map((d) => [d.day, d.open]))
  useEffect(() => {
    if (!byKeyboard.current) return
    byKeyboard.current = false
    grid.current?.querySelector<HTMLElement>('[tabindex="0"]')?.focus()
  }, [focus])

  function choose(date: string, extend: boolean): void {
    if (!extend) anchor.current = date
    onMove(date)
    if (date >= today) onSelect(ordered(anchor.current, date))
  }

  function key(e: KeyboardEvent): void {
    const weekday = weekdayOf(focus)
    const to = {
      ArrowLeft: addDays(focus, -1),
      ArrowRight: addDays(focus, 1),
      ArrowUp: addDays(focus, -7),
      ArrowDown: addDays(focus, 7),
      Home: addDays(focus, 1 - weekday),
      End: addDays(focus, 7 - weekday),
      PageUp: addMonths(focus, -1),
      PageDown: addMonths(focus, 1),
    }[e.key]
    if (to !== undefined) {
      e.preventDefault()
      if (to < firstOf(today)) return
      byKeyboard.current = true
      if (e.shiftKey) choose(to, true)
      else onMove(to)
    } else if (e.key === 'Enter' || e.key === ' ') {
      e.preventDefault()
      choose(focus, e.shiftKey)
    }
  }

  const month = new Intl.DateTimeFormat(language.value === 'en' ? 'en-GB' : language.value, {
    month: 'long',
    year: 'numeric',
    timeZone: 'UTC',
  }).format(new Date(firstOf(focus) + 'T12:00:00Z'))
  return (
    <div class="calendar">
      <div class="calendar-head">
        <button
          type="button"
          class="icon-button"
          aria-label={text.monthBefore}
          disabled={firstOf(focus) <= today}
          onClick={() =>
            onMove(addMonths(firstOf(focus), -1) < today ? today : addMonths(firstOf(focus), -1))
          }
        >
          ‹
        </button>
        <h3 aria-live="polite" id="calendar-month">
          {month}
        </h3>
        <button
          type="button"
          class="icon-button"
          aria-label={text.monthAfter}
          onClick={() => onMove(addMonths(firstOf(focus), 1))}
        >
          ›
        </button>
      </div>
      <table
        role="grid"
        aria-multiselectable="true"
        aria-labelledby="calendar-month"
        ref={grid}
        onKeyDown={key}
      >
        <thead>
          <tr>
            <WeekdayHeads weekdays={[1, 2, 3, 4, 5, 6, 7]} />
          </tr>
        </thead>
        <tbody>
          {weeksOf(focus).map((week) => (
            <tr key={week[0]}>
              {week.map((date) => {
                const open = own.get(date)
                const chosen = date >= selected.from && date <= selected.to
                const name = longDay(date + 'T12:00:00Z', 'UTC')
                const state = open === undefined ? '' : open.length === 0 ? 'closed' : 'other'
                return (
                  <td
                    key={date}
                    role="gridcell"
                    tabIndex={date === focus ? 0 : -1}
                    aria-selected={chosen}
                    aria-disabled={date < today || undefined}
                    aria-current={date === today ? 'date' : undefined}
                    aria-label={open === undefined ? name : `${name}: ${spansText(open)}`}
                    class={`${state}${date.slice(0, 7) === focus.slice(0, 7) ? '' : ' outside'}`}
                    onClick={(e) => {
                      if (date >= today) choose(date, e.shiftKey)
                    }}
                  >
                    <span class="date">{Number(date.slice(8))}</span>
                    {state === 'closed' && <span class="mark">×</span>}
                    {state === 'other' && (
                      <span class="mark">
                        ◷<span class="wide"> {spansText(open ?? [])}</span>
                      </span>
                    )}
                  </td>
                )
              })}
            </tr>
          ))}
        </tbody>
      </table>
      <p class="legend">
        <small>
          <b aria-hidden="true">×</b> {text.closed} · <b aria-hidden="true">◷</b> {text.otherHours} ·{' '}
          {text.calendarHint}
        </small>
      </p>
      <span class="visually-hidden" role="status">
        {chosenText(selected)}
      </span>
    </div>
  )
}

/** chosenText returns the selected dates in words. */
export function chosenText({ from, to }: Range): string {
  const of = (d: string): string => longDay(d + 'T12:00:00Z', 'UTC')
  return from === to ? of(from) : t().common.span(of(from), of(to))
}
