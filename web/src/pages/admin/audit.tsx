import { useSignal } from '@preact/signals'
import type { JSX } from 'preact'
import { api, call, type Schema } from '../../api/client.ts'
import { t, ts } from '../../i18n/text.ts'
import { clock, day } from '../../i18n/time.ts'
import { here, setQuery } from '../../router.tsx'
import { account } from '../../state/session.ts'
import { Button, useAction } from '../../ui/action.tsx'
import { Field } from '../../ui/field.tsx'
import { Fault } from '../../ui/problem.tsx'
import { branch, branches } from './branch.ts'
import { useLoaded, Wait } from './parts.tsx'

type Entry = Schema<'AuditEntry'>

/** The calls that write the audit log. Other actions are commands on the host: they are found by their object. */
const actions = [
  'CreateClosure',
  'UpdateClosure',
  'SetWeeklyHours',
  'SetDays',
  'SetAnnouncement',
  'SetPolicy',
  'UpsertSeats',
  'RetireSeats',
  'ImportSeats',
  'UpsertArea',
  'UpsertBranch',
  'UpsertScreen',
  'SetRole',
  'UpsertUsers',
  'CreateKey',
  'RevokeKey',
  'BookFor',
  'CancelFor',
  'CheckInFor',
  'CheckOutFor',
  'ForgiveStrikes',
  'SetSuspension',
  'CloseUser',
]

const pageSize = 30

/** Section is the audit log: each change of staff, with the state before and after it. */
export function Section(): JSX.Element {
  const text = ts().admin.log
  const query = here.value.query
  const everywhere = query.has('all')
  const action = query.get('action') ?? ''
  const object = query.get('object') ?? ''
  const code = everywhere ? '' : (branch.value?.code ?? '')
  const zone = branch.value?.timezone ?? 'UTC'
  const older = useSignal<{ key: string; entries: readonly Entry[]; next: string } | undefined>(undefined)
  const more = useAction()
  const key = [code, action, object].join('\n')
  const page = (pageToken: string): Promise<Schema<'ListAuditResponse'>> =>
    call(
      api.GET('/v1/admin/audit', {
        params: { query: { branch: code, action, object, pageSize, pageToken } },
      }),
    )
  const first = useLoaded(() => page(''), key)
  // The pages after the first one belong to the filter with which they were read.
  const rest = older.value?.key === key ? older.value : undefined
  const next = rest?.next ?? first.data.value?.nextPageToken ?? ''
  const readMore = (): Promise<boolean> =>
    more.run(async () => {
      const answer = await page(next)
      older.value = {
        key,
        entries: [...(rest?.entries ?? []), ...answer.entries],
        next: answer.nextPageToken,
      }
    })

  return (
    <>
      <form
        class="card row log-filter"
        onSubmit={(e) => {
          e.preventDefault()
          const typed = new FormData(e.currentTarget).get('object')
          setQuery({ object: typeof typed === 'string' ? typed.trim() : '' })
        }}
      >
        <Field label={text.action}>
          {(a) => (
            <select {...a} value={action} onChange={(e) => setQuery({ action: e.currentTarget.value })}>
              <option value="">{text.all}</option>
              {actions.map((one) => (
                <option key={one} value={one}>
                  {actionText(one)}
                </option>
              ))}
            </select>
          )}
        </Field>
        <Field label={text.object} hint={text.objectHint}>
          {(a) => <input {...a} name="object" key={object} defaultValue={object} maxLength={200} />}
        </Field>
        <Button type="submit">{text.filter}</Button>
        {(branches.value.length > 1 || account.value?.branches.length === 0) && (
          <label class="choice">
            <input
              type="checkbox"
              checked={everywhere}
              onChange={(e) => setQuery({ all: e.currentTarget.checked ? '1' : '' })}
            />
            {text.everywhere}
          </label>
        )}
      </form>
      <Wait of={first} zone={zone}>
        {({ entries }) => (
          <>
            {entries.length === 0 && <p>{text.none}</p>}
            <ul class="plain-list">
              {withoutDoubles([...entries, ...(rest?.entries ?? [])]).map((e) => (
                <li key={e.id} class="card">
                  <Row entry={e} zone={zone} />
                </li>
              ))}
            </ul>
          </>
        )}
      </Wait>
      <Fault problem={more.problem.value} zone={zone} />
      {next !== '' && (
        <Button busy={more.busy.value} onClick={() => void readMore()}>
          {t().common.more}
        </Button>
      )}
    </>
  )
}

/** withoutDoubles drops rows that two pages have: new rows move the first page, which is read again. */
function withoutDoubles(entries: readonly Entry[]): Entry[] {
  return [...new Map(entries.map((e) => [e.id, e])).values()]
}

function actionText(action: string): string {
  return (ts().admin.log.actions as Record<string, string>)[action] ?? action
}

function Row({ entry: e, zone }: { entry: Entry; zone: string }): JSX.Element {
  const text = ts().admin.log
  const role = (t().common.role as Record<string, string>)[`ROLE_${e.role}`]
  const person = role === undefined ? e.studentId : `${e.studentId} (${role})`
  const by = e.studentId !== '' ? person : e.role === 'KEY' ? text.key : text.host
  const changes = changesOf(e.before, e.after)
  return (
    <>
      <h2>{actionText(e.action)}</h2>
      <p class="log-head">
        {e.at !== undefined && (
          <time dateTime={e.at}>
            {day(e.at, zone)}, {clock(e.at, zone)}
          </time>
        )}
        {' · '}
        {by}
        {' · '}
        <button type="button" class="link" translate={false} onClick={() => setQuery({ object: e.object })}>
          {e.object}
        </button>
      </p>
      {e.reason !== '' && <p class="note">{text.reason(e.reason)}</p>}
      {changes.length > 0 && (
        <details open={changes.length <= 4}>
          <summary>{text.changes(changes.length)}</summary>
          <div class="scroll" tabIndex={0} role="group" aria-label={text.changes(changes.length)}>
            <table class="diff">
              <thead>
                <tr>
                  <th scope="col">{text.field}</th>
                  <th scope="col">{text.before}</th>
                  <th scope="col">{text.after}</th>
                </tr>
              </thead>
              <tbody translate={false}>
                {changes.map((c) => (
                  <tr key={c.path}>
                    <th scope="row">{c.path}</th>
                    <td>{c.before === undefined ? '' : <del>{valueText(c.before, zone)}</del>}</td>
                    <td>{c.after === undefined ? '' : <ins>{valueText(c.after, zone)}</ins>}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        </details>
      )}
    </>
  )
}

interface FieldChange {
  path: string
  before: unknown
  after: unknown
}

/** changesOf returns the fields that differ between two states in JSON. */
export function changesOf(before: string, after: string): FieldChange[] {
  const was = flat(before)
  const is = flat(after)
  return [...new Set([...was.keys(), ...is.keys()])]
    .map((path) => ({ path, before: was.get(path), after: is.get(path) }))
    .filter((c) => JSON.stringify(c.before) !== JSON.stringify(c.after))
}

/** flat returns the values of a document by their path, such as "note.en". A list of plain values is one value. */
function flat(json: string): Map<string, unknown> {
  const found = new Map<string, unknown>()
  const visit = (path: string, value: unknown): void => {
    if (Array.isArray(value) && value.every((v) => typeof v !== 'object' || v === null)) {
      found.set(path, value.join(', '))
    } else if (Array.isArray(value)) value.forEach((v, i) => visit(`${path}[${i + 1}]`, v))
    else if (typeof value === 'object' && value !== null) {
      for (const [name, v] of Object.entries(value)) visit(path === '' ? name : `${path}.${name}`, v)
    } else found.set(path === '' ? 'value' : path, value)
  }
  if (json === '') return found
  try {
    visit('', JSON.parse(json))
  } catch {
    found.set('value', json)
  }
  return found
}

function valueText(value: unknown, zone: string): string {
  if (value === true) return t().common.yes
  if (value === false) return t().common.no
  if (value === '') return t().common.none // such as the hours of a day that is closed
  if (typeof value === 'string' && /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d/.test(value)) {
    return `${day(value, zone)}, ${clock(value, zone)}`
  }
  // Durations are written as Go writes them: 4h0m0s.
  if (typeof value === 'string' && /^(\d+h)?(\d+m)?\d+s$/.test(value)) {
    return value.replace(/(?<=[hm])0s$/, '').replace(/h0m$/, 'h')
  }
  return typeof value === 'string' ? value : JSON.stringify(value)
}
