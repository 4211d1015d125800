import { useSignal } from '@preact/signals'
import { useEffect, useId, useRef } from 'preact/hooks'
import type { ComponentChildren, JSX, RefObject } from 'preact'
import { ts } from '../i18n/text.ts'

/** Series is a row of values of a chart. Colour and hatching tell the series apart, and the legend names them. */
export interface Series {
  name: string
  values: readonly number[]
}

interface BarsProps {
  /** title names the chart for screen readers; the table beside it has the values. */
  title: string
  labels: readonly string[]
  series: readonly Series[]
  format: (n: number) => string
  /** most is the top of the axis; default: the largest value. */
  most?: number
}

const height = 200 // pixels
const axis = 52
const foot = 24
const head = 10

/** Bars shows values side by side, such as the use of each day. */
export function Bars({ title, labels, series, format, most }: BarsProps): JSX.Element {
  const ref = useRef<HTMLDivElement>(null)
  const width = useWidth(ref)
  const id = useId()
  const top = niceTop(most ?? Math.max(0, ...series.flatMap((s) => s.values)))
  const whole = series.every((s) => s.values.every(Number.isInteger)) // no half of a check-in
  const lines = most === undefined && whole ? [0, top / 2, top].filter(Number.isInteger) : [0, top / 2, top]
  const plot = Math.max(0, width - axis)
  const step = labels.length === 0 ? 0 : plot / labels.length
  const bar = Math.max(1, (step * 0.8) / series.length)
  const every = Math.max(1, Math.ceil(labels.length / Math.max(1, Math.floor(plot / 72))))
  const y = (v: number): number => (height - foot) * (1 - v / top) + head
  const half = 38 // half of the width of a label
  const place = (i: number): number => Math.min(width - half, Math.max(axis + half, axis + (i + 0.5) * step))
  return (
    <div class="chart" ref={ref}>
      {series.length > 1 && (
        <ul class="chart-legend">
          {series.map((s, i) => (
            <li key={s.name}>
              <svg width="16" height="16" aria-hidden="true">
                <rect class={`bar s${i}`} width="16" height="16" />
                {i === 1 && <rect width="16" height="16" fill={`url(#${id})`} />}
              </svg>
              {s.name}
            </li>
          ))}
        </ul>
      )}
      <svg width={width} height={height + head} role="img" aria-label={title}>
        <Hatching id={id} />
        {lines.map((v) => (
          <g key={v}>
            <line class="grid-line" x1={axis} x2={width} y1={y(v)} y2={y(v)} />
            <text class="axis" x={axis - 6} y={y(v) + 4} text-anchor="end">
              {format(v)}
            </text>
          </g>
        ))}
        {labels.map((label, i) => (
          <g key={i}>
            {series.map((s, j) => {
              const value = s.values[i] ?? 0
              const x = axis + i * step + step * 0.1 + j * bar
              const box = {
                x,
                y: y(value),
                width: Math.max(0.5, bar - 1),
                height: Math.max(0, y(0) - y(value)),
              }
              return (
                <g key={s.name}>
                  <rect class={`bar s${j}`} {...box}>
                    <title>{`${label}: ${s.name} ${format(value)}`}</title>
                  </rect>
                  {j === 1 && <rect {...box} fill={`url(#${id})`} pointer-events="none" />}
                </g>
              )
            })}
            {i % every === 0 && (i === 0 || place(i) - place(i - every) > 2 * half) && (
              <text class="axis" x={place(i)} y={height + head - 4} text-anchor="middle">
                {label}
              </text>
            )}
          </g>
        ))}
      </svg>
    </div>
  )
}

interface LinesProps {
  title: string
  rows: readonly { name: string; value: number; text: string }[]
}

/** Lines shows one bar a row with its name and its value as text, such as the use of each area. */
export function Lines({ title, rows }: LinesProps): JSX.Element {
  const most = Math.max(1, ...rows.map((r) => r.value))
  return (
    <ul class="chart-lines" aria-label={title}>
      {rows.map((r) => (
        <li key={r.name}>
          <span>{r.name}</span> <b>{r.text}</b>
          <svg viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">
            <rect class="rail" width="100" height="6" />
            <rect class="bar s0" width={(100 * r.value) / most} height="6" />
          </svg>
        </li>
      ))}
    </ul>
  )
}

function Hatching({ id }: { id: string }): JSX.Element {
  return (
    <defs>
      <pattern id={id} width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
        <rect class="hatch" width="2" height="5" />
      </pattern>
    </defs>
  )
}

/** niceTop returns the end of an axis: 1, 2 or 5 times a power of ten. */
function niceTop(value: number): number {
  if (value <= 0) return 1
  const power = 10 ** Math.floor(Math.log10(value))
  return [1, 2, 5, 10].map((f) => f * power).find((t) => t >= value) ?? value
}

/** useWidth returns the width of an element, so that the text of a chart keeps its size on a phone. */
function useWidth(ref: RefObject<HTMLElement | null>): number {
  const width = useSignal(320)
  useEffect(() => {
    const element = ref.current
    if (element === null) return
    const observer = new ResizeObserver(([entry]) => {
      if (entry !== undefined) width.value = Math.max(200, Math.floor(entry.contentRect.width))
    })
    observer.observe(element)
    return () => observer.disconnect()
  }, [])
  return width.value
}

/** Table is the table of a chart: names of the columns, and rows whose first cell is their name. */
export interface Table {
  columns: readonly string[]
  rows: readonly (readonly (string | number)[])[]
}

interface FigureProps {
  title: string
  hint?: string
  /** file is the name of the CSV file of the table. */
  file: string
  table: Table
  /** format returns the text of a number in a column of the table. */
  format: (value: string | number, column: number) => string
  children: ComponentChildren
}

/** Figure is a chart with its table, which can be saved as CSV. */
export function Figure({ title, hint, file, table, format, children }: FigureProps): JSX.Element {
  const id = useId()
  return (
    <section class="card figure" aria-labelledby={id}>
      <h2 id={id}>{title}</h2>
      {hint !== undefined && (
        <p>
          <small>{hint}</small>
        </p>
      )}
      {children}
      <div class="row">
        <details>
          <summary>{ts().reports.table}</summary>
          <div class="scroll table-box" tabIndex={0} role="group" aria-labelledby={id}>
            <table>
              <thead>
                <tr>
                  {table.columns.map((c, i) => (
                    <th key={c} scope="col" class={i > 0 ? 'num' : ''}>
                      {c}
                    </th>
                  ))}
                </tr>
              </thead>
              <tbody>
                {table.rows.map((r, i) => (
                  <tr key={i}>
                    {r.map((v, j) => {
                      const text = format(v, j)
                      return j === 0 ? (
                        <th key={j} scope="row">
                          {text}
                        </th>
                      ) : (
                        <td key={j} class="num">
                          {text}
                        </td>
                      )
                    })}
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        </details>
        <button
          type="button"
          class="button plain"
          aria-label={`${ts().reports.csv}: ${title}`}
          onClick={() =>
            saveFile(file, new Blob(['\ufeff', csvOf(table)], { type: 'text/csv;charset=utf-8' }))
          }
        >
          {ts().reports.csv}
        </button>
      </div>
    </section>
  )
}

/** csvOf returns a table as CSV. A text that a spreadsheet would run as a formula gets an apostrophe before it. */
export function csvOf({ columns, rows }: Table): string {
  const cell = (v: string | number): string => {
    if (typeof v === 'number') return String(v)
    const safe = /^[=+\-@\t\r]/.test(v) ? `'${v}` : v
    return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe
  }
  return [columns, ...rows].map((r) => r.map(cell).join(',') + '\r\n').join('')
}

/** saveFile lets the browser save a file. */
export function saveFile(name: string, content: Blob): void {
  const link = document.createElement('a')
  link.href = URL.createObjectURL(content)
  link.download = name
  link.click()
  // The browser reads the address after the click has returned.
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000)
}
