import type { JSX } from 'preact'
import { ts } from '../../../i18n/text.ts'
import { addDays, number, weekdayName } from '../../../i18n/time.ts'
import { Bars, Figure, Lines, type Table } from '../../../ui/chart.tsx'
import { dateText, WeekdayHeads } from '../parts.tsx'
import { figuresOf, share, sum, type Figures, type UsageQuery, type UsageRow } from './usage.ts'

interface FigureProps {
  rows: readonly UsageRow[]
  query: UsageQuery
}

function percent(n: number): string {
  return number(n, { style: 'percent', maximumFractionDigits: 0 })
}

/** hours returns minutes as hours with at most one digit. */
function hours(minutes: number): number {
  return Math.round(minutes / 6) / 10
}

function whole(n: number): string {
  return number(n, { maximumFractionDigits: 1 })
}

/** text returns the text of a cell of a table: shares as percent. */
function cells(shares: readonly number[]): (value: string | number, column: number) => string {
  return (value, column) =>
    typeof value === 'string' ? value : shares.includes(column) ? percent(value) : whole(value)
}

/** round keeps three digits of a share, for the CSV. */
function round(n: number): number {
  return Math.round(n * 1000) / 1000
}

function file(query: UsageQuery, name: string): string {
  const area = query.area === '' ? '' : `-${query.area.replaceAll(/[^\p{L}\p{N}]+/gu, '-')}`
  return `${name}-${query.branch}${area}-${query.from}-${query.to}.csv`
}

/** Totals are the sums of a report. */
export function Totals({ rows }: { rows: readonly UsageRow[] }): JSX.Element {
  const text = ts().reports
  const f = sum(rows)
  const items: [string, string][] = [
    [text.utilisation, percent(share(f.reserved, f.open))],
    [text.usedShare, percent(share(f.used, f.open))],
    [text.reservations, number(f.reservations)],
    [text.checkIns, number(f.checkIns)],
    [text.noShows, `${number(f.noShows)} (${percent(share(f.noShows, f.noShows + f.checkIns))})`],
    [text.refused, number(f.refused)],
    [text.joins, number(f.joins)],
  ]
  return (
    <dl class="totals">
      {items.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  )
}

/** DayFigures are the charts by day: utilisation, no-shows, and unmet demand. Days without figures are 0. */
export function DayFigures({ rows, query }: FigureProps): JSX.Element {
  const text = ts().reports
  const byDay = new Map(rows.map((r) => [r.day, figuresOf(r)]))
  const days: string[] = []
  for (let d = query.from; d <= query.to && days.length < 1100; d = addDays(d, 1)) days.push(d)
  const labels = days.map(dateText)
  const of = (f: (x: Figures) => number): number[] =>
    days.map((d) => {
      const found = byDay.get(d)
      return found === undefined ? 0 : f(found)
    })
  const table = (columns: [string, (x: Figures) => number][]): Table => ({
    columns: [text.day, ...columns.map(([name]) => name)],
    rows: days.map((d, i) => [d, ...columns.map(([, f]) => of(f)[i] ?? 0)]),
  })
  const reserved = (f: Figures): number => round(share(f.reserved, f.open))
  const used = (f: Figures): number => round(share(f.used, f.open))
  return (
    <>
      <Figure
        title={text.byDay}
        hint={text.byDayHint}
        file={file(query, 'utilisation')}
        table={table([
          [text.reservedShare, reserved],
          [text.usedShare, used],
          [text.openHours, (f) => hours(f.open)],
          [text.reservedHours, (f) => hours(f.reserved)],
          [text.usedHours, (f) => hours(f.used)],
        ])}
        format={cells([1, 2])}
      >
        <Bars
          title={text.byDay}
          labels={labels}
          series={[
            { name: text.reservedShare, values: of(reserved) },
            { name: text.usedShare, values: of(used) },
          ]}
          format={percent}
          most={1}
        />
      </Figure>
      <Figure
        title={text.arrivals}
        file={file(query, 'arrivals')}
        table={table([
          [text.reservations, (f) => f.reservations],
          [text.checkIns, (f) => f.checkIns],
          [text.noShows, (f) => f.noShows],
          [text.cancelled, (f) => f.cancelled],
          [text.cancelledByLibrary, (f) => f.cancelledByLibrary],
        ])}
        format={cells([])}
      >
        <Bars
          title={text.arrivals}
          labels={labels}
          series={[
            { name: text.checkIns, values: of((f) => f.checkIns) },
            { name: text.noShows, values: of((f) => f.noShows) },
          ]}
          format={whole}
        />
      </Figure>
      <Figure
        title={text.demand}
        hint={text.demandHint}
        file={file(query, 'demand')}
        table={table([
          [text.refused, (f) => f.refused],
          [text.joins, (f) => f.joins],
          [text.offers, (f) => f.offers],
          [text.claims, (f) => f.claims],
        ])}
        format={cells([])}
      >
        <Bars
          title={text.demand}
          labels={labels}
          series={[
            { name: text.refused, values: of((f) => f.refused) },
            { name: text.joins, values: of((f) => f.joins) },
          ]}
          format={whole}
        />
      </Figure>
    </>
  )
}

/** HourFigure is the utilisation of each hour of the week. The table is the chart: the shade repeats the number. */
export function HourFigure({ rows, query }: FigureProps): JSX.Element {
  const text = ts().reports
  const weekdays = [1, 2, 3, 4, 5, 6, 7]
  const at = new Map(rows.map((r) => [`${r.weekday} ${r.hour}`, figuresOf(r)]))
  const value = (weekday: number, hour: number): number | undefined => {
    const f = at.get(`${weekday} ${hour}`)
    return f === undefined || f.open === 0 ? undefined : share(f.reserved, f.open)
  }
  const shown = Array.from({ length: 24 }, (_, h) => h).filter((h) =>
    weekdays.some((d) => (value(d, h) ?? 0) > 0),
  )
  const table: Table = {
    columns: [
      text.weekday,
      text.hour,
      text.openHours,
      text.reservedHours,
      text.usedHours,
      text.reservations,
      text.noShows,
    ],
    rows: rows.map((r) => {
      const f = figuresOf(r)
      const times = [hours(f.open), hours(f.reserved), hours(f.used)]
      return [weekdayName(r.weekday), r.hour, ...times, f.reservations, f.noShows]
    }),
  }
  return (
    <Figure
      title={text.byHour}
      hint={text.byHourHint}
      file={file(query, 'week')}
      table={table}
      format={cells([])}
    >
      <table class="heat">
        <caption class="visually-hidden">{text.byHour}</caption>
        <thead>
          <tr>
            <th scope="col">{text.hour}</th>
            <WeekdayHeads weekdays={weekdays} />
          </tr>
        </thead>
        <tbody>
          {shown.map((h) => (
            <tr key={h}>
              <th scope="row">{h}</th>
              {weekdays.map((d) => {
                const v = value(d, h)
                return (
                  <td key={d} style={{ '--heat': `${Math.round((v ?? 0) * 45)}%` }}>
                    {v === undefined ? '–' : Math.round(v * 100)}
                  </td>
                )
              })}
            </tr>
          ))}
        </tbody>
      </table>
    </Figure>
  )
}

/** AreaFigure is the utilisation of each area. */
export function AreaFigure({ rows, query }: FigureProps): JSX.Element {
  const text = ts().reports
  return (
    <Figure
      title={text.byArea}
      file={file(query, 'areas')}
      table={{
        columns: [
          text.area,
          text.reservedShare,
          text.usedShare,
          text.openHours,
          text.reservations,
          text.noShows,
          text.refused,
        ],
        rows: rows.map((r) => {
          const f = figuresOf(r)
          const [reserved, used] = [round(share(f.reserved, f.open)), round(share(f.used, f.open))]
          return [r.area, reserved, used, hours(f.open), f.reservations, f.noShows, f.refused]
        }),
      }}
      format={cells([1, 2])}
    >
      <Lines
        title={text.byArea}
        rows={rows.map((r) => {
          const f = figuresOf(r)
          const value = share(f.reserved, f.open)
          return { name: r.area, value, text: percent(value) }
        })}
      />
    </Figure>
  )
}

/** CheckInFigure is the check-ins by their proof of presence. */
export function CheckInFigure({ rows, query }: FigureProps): JSX.Element {
  const text = ts().reports
  const of = (f: (c: NonNullable<UsageRow['checkIns']>) => number): number =>
    rows.reduce((n, r) => n + (r.checkIns === undefined ? 0 : f(r.checkIns)), 0)
  const proofs: [string, number][] = [
    [text.proof.screen, of((c) => c.screen)],
    [text.proof.seat, of((c) => c.seat)],
    [text.proof.both, of((c) => c.seatAndScreen)],
    [text.proof.desk, of((c) => c.desk)],
    [text.proof.arrival, of((c) => c.arrival)],
  ]
  const total = of((c) => c.total)
  proofs.push([text.proof.none, total - proofs.reduce((n, [, value]) => n + value, 0)])
  return (
    <Figure
      title={text.byProof}
      file={file(query, 'check-ins')}
      table={{
        columns: [text.proofName, text.checkIns, text.shareName],
        rows: proofs.map(([n, v]) => [n, v, round(share(v, total))]),
      }}
      format={cells([2])}
    >
      <Lines
        title={text.byProof}
        rows={proofs.map(([name, value]) => ({
          name,
          value,
          text: `${number(value)} (${percent(share(value, total))})`,
        }))}
      />
    </Figure>
  )
}

/** GroupFigure is the reservations by group of users. */
export function GroupFigure({ rows, query }: FigureProps): JSX.Element {
  const text = ts().reports
  const name = (r: UsageRow): string => (r.group === '' ? text.noGroup : r.group)
  return (
    <Figure
      title={text.byGroup}
      file={file(query, 'groups')}
      table={{
        columns: [
          text.group,
          text.reservations,
          text.reservedHours,
          text.usedHours,
          text.noShows,
          text.cancelled,
          text.refused,
        ],
        rows: rows.map((r) => {
          const f = figuresOf(r)
          return [
            name(r),
            f.reservations,
            hours(f.reserved),
            hours(f.used),
            f.noShows,
            f.cancelled,
            f.refused,
          ]
        }),
      }}
      format={cells([])}
    >
      <Lines
        title={text.byGroup}
        rows={rows.map((r) => ({ name: name(r), value: r.reservations, text: number(r.reservations) }))}
      />
    </Figure>
  )
}
