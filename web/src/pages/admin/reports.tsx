import { useSignal } from '@preact/signals'
import { useEffect } from 'preact/hooks'
import type { JSX } from 'preact'
import type { Schema } from '../../api/client.ts'
import { asProblem, type Problem } from '../../api/problem.ts'
import { t, ts } from '../../i18n/text.ts'
import { dayAndClock } from '../../i18n/time.ts'
import { here, setQuery } from '../../router.tsx'
import { serverNow } from '../../state/clock.ts'
import { Field, faultOf } from '../../ui/field.tsx'
import { Fault } from '../../ui/problem.tsx'
import { branch } from './branch.ts'
import { AreaFigure, CheckInFigure, DayFigures, GroupFigure, HourFigure, Totals } from './reports/figures.tsx'
import { Export } from './reports/export.tsx'
import { presetDays, readUsage, type By, type Preset, type Usage, type UsageQuery } from './reports/usage.ts'

/** Section reports how the seats of a branch were used. */
export function Section(): JSX.Element | null {
  const b = branch.value
  return b === undefined ? null : <Reports branch={b} />
}

const presets: Preset[] = ['today', 'thisWeek', 'lastWeek', 'thisMonth', 'lastMonth', 'days28']

function Reports({ branch: b }: { branch: Schema<'BranchSettings'> }): JSX.Element {
  const text = ts().reports
  const asked = here.value.query
  const initial = presetDays('days28', serverNow(), b.timezone)
  const query: UsageQuery = {
    from: asked.get('from') ?? initial.from,
    to: asked.get('to') ?? initial.to,
    branch: b.code,
    area: asked.get('area') ?? '',
  }
  const reports = useReports(query)
  const { DAY: byDay, WEEKDAY_HOUR: byHour, AREA: byArea, GROUP: byGroup } = reports.done.value
  return (
    <>
      <Filter branch={b} query={query} problem={reports.problem.value} />
      <Fault problem={reports.problem.value} zone={b.timezone} />
      {byDay !== undefined && <Notes usage={byDay} query={query} zone={b.timezone} />}
      {byDay !== undefined && byDay.rows.length === 0 && <p>{text.empty}</p>}
      {byDay !== undefined && byDay.rows.length > 0 && (
        <>
          <Totals rows={byDay.rows} />
          <DayFigures rows={byDay.rows} query={query} />
        </>
      )}
      {byHour !== undefined && byHour.rows.length > 0 && <HourFigure rows={byHour.rows} query={query} />}
      {byArea !== undefined && byArea.rows.length > 0 && <AreaFigure rows={byArea.rows} query={query} />}
      {byGroup !== undefined && byGroup.rows.length > 0 && (
        <>
          <CheckInFigure rows={byGroup.rows} query={query} />
          <GroupFigure rows={byGroup.rows} query={query} />
        </>
      )}
      {reports.busy.value && (
        <p class="loading" role="status">
          {t().common.loading}
        </p>
      )}
      <Export query={query} />
    </>
  )
}

type Done = Partial<Record<By, Usage>>

/** useReports reads the reports one after another: a replica makes one at a time. */
function useReports(query: UsageQuery): {
  done: { value: Done }
  problem: { value: Problem | undefined }
  busy: { value: boolean }
} {
  const done = useSignal<Done>({})
  const problem = useSignal<Problem | undefined>(undefined)
  const busy = useSignal(true)
  useEffect(() => {
    let current = true
    done.value = {}
    problem.value = undefined
    busy.value = true
    const read = async (): Promise<void> => {
      for (const by of ['DAY', 'WEEKDAY_HOUR', 'AREA', 'GROUP'] as const) {
        const usage = await readUsage(query, by)
        if (!current) return
        done.value = { ...done.value, [by]: usage }
      }
    }
    read()
      .catch((e: unknown) => {
        if (current) problem.value = asProblem(e)
      })
      .finally(() => {
        if (current) busy.value = false
      })
    return () => {
      current = false
    }
  }, [query.from, query.to, query.branch, query.area])
  return { done, problem, busy }
}

interface FilterProps {
  branch: Schema<'BranchSettings'>
  query: UsageQuery
  problem: Problem | undefined
}

function Filter({ branch: b, query, problem }: FilterProps): JSX.Element {
  const text = ts().reports
  return (
    <section class="card" aria-label={text.filter}>
      <div class="chips">
        {presets.map((p) => {
          const days = presetDays(p, serverNow(), b.timezone)
          const chosen = days.from === query.from && days.to === query.to
          return (
            <button
              key={p}
              type="button"
              class="chip"
              aria-pressed={chosen}
              onClick={() => setQuery({ ...days }, true)}
            >
              {text.preset[p]}
            </button>
          )
        })}
      </div>
      <div class="row report-filter">
        <Field label={ts().hours.firstDay} fault={faultOf(problem, 'from')}>
          {(a) => (
            <input
              {...a}
              type="date"
              value={query.from}
              max={query.to}
              onChange={(e) => setDays(e.currentTarget.value, query.to)}
            />
          )}
        </Field>
        <Field label={ts().hours.lastDay} fault={faultOf(problem, 'to')}>
          {(a) => (
            <input
              {...a}
              type="date"
              value={query.to}
              min={query.from}
              onChange={(e) => setDays(query.from, e.currentTarget.value)}
            />
          )}
        </Field>
        <Field label={ts().hours.area}>
          {(a) => (
            <select
              {...a}
              value={query.area}
              onChange={(e) => setQuery({ area: e.currentTarget.value }, true)}
            >
              <option value="">{ts().policies.allAreas}</option>
              {b.areas.map((one) => (
                <option key={one.name}>{one.name}</option>
              ))}
            </select>
          )}
        </Field>
      </div>
      <small>{text.daysHint(b.timezone)}</small>
    </section>
  )
}

function setDays(from: string, to: string): void {
  if (from !== '' && to !== '') setQuery({ from, to: to < from ? from : to }, true)
}

/** Notes tells when the figures are not complete. */
function Notes({
  usage,
  query,
  zone,
}: {
  usage: Usage
  query: UsageQuery
  zone: string
}): JSX.Element | null {
  const text = ts().reports
  const until = usage.countedUntil
  if (until === undefined) return null
  // The time of the call is the normal case. Only after an update is the past still being counted.
  const late = Date.parse(until) < serverNow() - 60_000
  const startsLater = query.from > new Date(Date.parse(until)).toISOString().slice(0, 10)
  if (!late && !startsLater) return null
  return (
    <p class="banner" role="status">
      {text.countedUntil(dayAndClock(until, zone))}
    </p>
  )
}
