import type { JSX } from 'preact'
import { api, call, type Schema } from '../../api/client.ts'
import { byLanguage, ts } from '../../i18n/text.ts'
import { clock, dateOf, dayAndClock, number } from '../../i18n/time.ts'
import { Link } from '../../router.tsx'
import { branchOf, loadBranches as loadPublic } from '../../state/branches.ts'
import { minute, serverNow } from '../../state/clock.ts'
import { Bars, Figure } from '../../ui/chart.tsx'
import { adminPath, branch } from './branch.ts'
import { scopeText, stateOf } from './closures/scope.ts'
import { useSeatStream, useSpaced, type Counts } from './live.ts'
import { spanText, useLoaded, Wait, type Loaded } from './parts.tsx'
import { scopeName } from './policies/scope.ts'
import { isSet, allRules, ruleText } from './policies/rules.tsx'
import { figuresOf, readUsage, sum, type Usage } from './reports/usage.ts'

type Settings = Schema<'BranchSettings'>

/** Section is what a librarian needs at a glance: the seats, the arrivals, and what is not as usual. */
export function Section(): JSX.Element | null {
  const b = branch.value
  return b === undefined ? null : <Today branch={b} />
}

/** A report reads many rows, so changes of seats read it again only after this time. */
const reportPause = 15_000 // milliseconds

function Today({ branch: b }: { branch: Settings }): JSX.Element {
  const text = ts().admin.now
  const today = dateOf(minute.value, b.timezone)
  const opening = useLoaded(loadPublic, b.code)
  const usage = useLoaded(
    () => readUsage({ from: today, to: today, branch: b.code, area: '' }, 'HOUR'),
    b.code + today,
  )
  const query = { branch: b.code }
  const closures = useLoaded(() => call(api.GET('/v1/admin/closures', { params: { query } })), b.code)
  const policies = useLoaded(() => call(api.GET('/v1/admin/policies')), b.code)
  const reloadUsage = useSpaced(() => void usage.reload(), reportPause)
  const counts = useSeatStream(b.code, () => {
    void opening.reload()
    void closures.reload()
    reloadUsage()
  })
  return (
    <>
      <Now branch={b} counts={counts.value} />
      <nav class="row quick" aria-label={text.actions}>
        <Link class="button main" href={adminPath('closures', { new: '1' })}>
          {ts().hours.newClosure}
        </Link>
        <Link class="button" href={adminPath('announcement')}>
          {text.announce}
        </Link>
        <Link class="button" href="/desk">
          {text.desk}
        </Link>
      </nav>
      <Wait of={usage} zone={b.timezone}>
        {(u) => <Arrivals usage={u} branch={b} today={today} />}
      </Wait>
      <div class="today-cards">
        <ClosureList branch={b} closures={closures} />
        <section class="card" aria-labelledby="announcement-title">
          <h2 id="announcement-title">{ts().admin.announcement}</h2>
          <p class="note">{byLanguage(b.announcement) || ts().admin.announce.none}</p>
          <Link href={adminPath('announcement')}>{ts().hours.change}</Link>
        </section>
        <section class="card" aria-labelledby="policies-title">
          <h2 id="policies-title">{text.policies}</h2>
          <Wait of={policies}>
            {({ policies: all }) => <PolicyList all={all} code={b.code} today={today} />}
          </Wait>
          <Link href={adminPath('policies')}>{text.allPolicies}</Link>
        </section>
      </div>
    </>
  )
}

function Now({ branch: b, counts }: { branch: Settings; counts: Counts | undefined }): JSX.Element {
  const text = ts().admin.now
  const open = branchOf(b.code)
  const numbers: [string, number | undefined, string][] = [
    [text.free, counts?.free, 'free'],
    [open?.open === false ? text.notAvailable : text.taken, counts?.taken, 'taken'],
    [text.outOfService, counts?.outOfService, 'warn'],
  ]
  return (
    <section class="card now-card" aria-labelledby="now-title">
      <h2 id="now-title">{b.name}</h2>
      <p>{open === undefined ? '\u00a0' : openText(open)}</p>
      <dl class="totals">
        {numbers.map(([name, n, kind]) => (
          <div key={kind} class={kind}>
            <dt>{name}</dt>
            <dd>{n === undefined ? '…' : number(n)}</dd>
          </div>
        ))}
      </dl>
    </section>
  )
}

function openText(b: Schema<'Branch'>): string {
  const text = ts().admin.now
  if (b.open)
    return b.closesAt === undefined ? text.alwaysOpen : text.openUntil(dayAndClock(b.closesAt, b.timezone))
  return b.opensAt === undefined ? text.closed : text.opensAt(dayAndClock(b.opensAt, b.timezone))
}

function Arrivals({
  usage,
  branch: b,
  today,
}: {
  usage: Usage
  branch: Settings
  today: string
}): JSX.Element {
  const text = ts().reports
  const rows = usage.rows
  if (rows.every((r) => figuresOf(r).checkIns + r.noShows === 0)) {
    return (
      <section class="card" aria-labelledby="arrivals-title">
        <h2 id="arrivals-title">{ts().admin.now.arrivals}</h2>
        <p>{ts().admin.now.noArrivals}</p>
      </section>
    )
  }
  const total = sum(rows)
  const hour = (r: Schema<'UsageRow'>): string => clock(r.startTime ?? serverNow(), b.timezone)
  return (
    <Figure
      title={ts().admin.now.arrivals}
      hint={ts().admin.now.arrivalsSum(total.checkIns, total.noShows)}
      file={`arrivals-${b.code}-${today}.csv`}
      table={{
        columns: [text.hour, text.reservations, text.checkIns, text.noShows, text.cancelled],
        rows: rows.map((r) => [hour(r), r.reservations, figuresOf(r).checkIns, r.noShows, r.cancelled]),
      }}
      format={(v) => (typeof v === 'number' ? number(v) : v)}
    >
      <Bars
        title={ts().admin.now.arrivals}
        labels={rows.map(hour)}
        series={[
          { name: text.checkIns, values: rows.map((r) => figuresOf(r).checkIns) },
          { name: text.noShows, values: rows.map((r) => r.noShows) },
        ]}
        format={(n) => number(n, { maximumFractionDigits: 1 })}
      />
    </Figure>
  )
}

interface ClosureListProps {
  branch: Settings
  closures: Loaded<Schema<'ListClosuresResponse'>>
}

function ClosureList({ branch: b, closures }: ClosureListProps): JSX.Element {
  const most = 5
  return (
    <section class="card" aria-labelledby="closures-title">
      <h2 id="closures-title">{ts().hours.closures}</h2>
      <Wait of={closures} zone={b.timezone}>
        {({ closures: all }) => {
          const current = all
            .filter((c) => ['active', 'coming'].includes(stateOf(c, minute.value)))
            .sort((x, y) => (x.startTime ?? '').localeCompare(y.startTime ?? ''))
          if (current.length === 0) return <p>{ts().hours.noClosures}</p>
          return (
            <ul class="plain-list">
              {current.slice(0, most).map((c) => (
                <li key={c.id}>
                  <strong>{scopeText(c, new Map())}</strong>{' '}
                  <span class={`tag ${stateOf(c, minute.value) === 'active' ? 'taken' : 'warn'}`}>
                    {ts().hours.state[stateOf(c, minute.value)]}
                  </span>
                  <br />
                  {spanText(c.startTime, c.endTime, b.timezone)}
                </li>
              ))}
            </ul>
          )
        }}
      </Wait>
      <Link href={adminPath('closures')}>{ts().admin.now.allClosures}</Link>
    </section>
  )
}

interface PolicyListProps {
  all: readonly Schema<'Policy'>[]
  code: string
  today: string
}

/** PolicyList names the policies that hold today, with their rules. */
function PolicyList({ all, code, today }: PolicyListProps): JSX.Element {
  const shown = all.filter((p) => {
    const begun = !p.firstDay || p.firstDay <= today
    return (!p.branch || p.branch === code) && begun && (!p.lastDay || p.lastDay >= today)
  })
  if (shown.length === 0) return <p>{ts().policies.none}</p>
  return (
    <ul class="plain-list">
      {shown.map((p) => (
        <li key={JSON.stringify(p)}>
          <strong>{scopeName(p)}</strong>
          <br />
          <small>
            {allRules
              .filter((r) => isSet(p.rules, r))
              .map((r) => `${ts().policies.rule[r.name]}: ${ruleText(p.rules, r)}`)
              .join('; ')}
          </small>
        </li>
      ))}
    </ul>
  )
}
