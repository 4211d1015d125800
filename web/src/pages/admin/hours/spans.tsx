import type { ComponentChildren, JSX } from 'preact'
import type { Schema } from '../../../api/client.ts'
import { ts } from '../../../i18n/text.ts'
import { Button } from '../../../ui/action.tsx'

/** Span is a span of the day. One that closes at or before its opening closes on the next day. */
export interface Span {
  opens: string
  closes: string
}

/** formSpan returns a span of the API as inputs of type "time" hold it: they know no seconds and no 24:00. */
export function formSpan(s: Schema<'TimeSpan'>): Span {
  const closes = s.closes?.slice(0, 5) ?? ''
  return { opens: s.opens?.slice(0, 5) ?? '', closes: closes === '24:00' ? '00:00' : closes }
}

/** apiSpan is the inverse of formSpan. */
export function apiSpan(s: Span): Schema<'TimeSpan'> {
  return { opens: s.opens, closes: s.closes === '00:00' ? '24:00' : s.closes }
}

/** complete tells whether all times of the spans are entered. */
export function complete(spans: readonly Span[]): boolean {
  return spans.every((s) => s.opens !== '' && s.closes !== '')
}

/** spansText returns spans as a reader of the door would see them, such as 08:00–12:00, 13:00–22:00. */
export function spansText(spans: readonly Schema<'TimeSpan'>[]): string {
  if (spans.length === 0) return ts().hours.closed
  return spans
    .map(formSpan)
    .map((s) => `${s.opens}–${apiSpan(s).closes}${nextDay(s) ? ` ${ts().hours.nextDay}` : ''}`)
    .join(', ')
}

function nextDay(s: Span): boolean {
  return s.closes !== '' && s.closes !== '00:00' && s.closes <= s.opens
}

/** usual is the first span of a day in the form. */
const usual: Span = { opens: '08:00', closes: '22:00' }

interface SpanListProps {
  /** of names the day for screen readers, such as Monday. */
  of: string
  spans: readonly Span[]
  onChange: (spans: Span[]) => void
  /** children are more buttons. */
  children?: ComponentChildren
}

/** SpanList edits the spans of a day. */
export function SpanList({ of, spans, onChange, children }: SpanListProps): JSX.Element {
  const text = ts().hours
  const set = (i: number, s: Span): void => onChange(spans.map((old, j) => (i === j ? s : old)))
  return (
    <div class="spans">
      {spans.length === 0 && <span class="tag taken">{text.closed}</span>}
      {spans.map((s, i) => (
        <span class="span" key={i}>
          <input
            type="time"
            required
            aria-label={text.opensLabel(of, i + 1)}
            value={s.opens}
            onInput={(e) => set(i, { ...s, opens: e.currentTarget.value })}
          />
          –
          <input
            type="time"
            required
            aria-label={text.closesLabel(of, i + 1)}
            value={s.closes}
            onInput={(e) => set(i, { ...s, closes: e.currentTarget.value })}
          />
          {nextDay(s) && <small>{text.nextDay}</small>}
          <button
            type="button"
            class="icon-button"
            aria-label={text.removeSpan(of, i + 1)}
            onClick={() => onChange(spans.filter((_, j) => j !== i))}
          >
            ×
          </button>
        </span>
      ))}
      <Button
        label={text.addSpanLabel(of)}
        onClick={() => onChange([...spans, spans.length === 0 ? usual : { opens: '', closes: '' }])}
      >
        {spans.length === 0 ? text.open : text.addSpan}
      </Button>
      {children}
    </div>
  )
}
