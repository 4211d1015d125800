import { useSignal } from '@preact/signals'
import { useId, useRef } from 'preact/hooks'
import type { JSX } from 'preact'
import { api, call, type Schema } from '../../api/client.ts'
import { t, ts } from '../../i18n/text.ts'
import { number } from '../../i18n/time.ts'
import { Link } from '../../router.tsx'
import { Button, useAction } from '../../ui/action.tsx'
import { announce } from '../../ui/announce.tsx'
import { ActionChoice, ImpactView, ReasonField, type Action } from '../../ui/impact.tsx'
import { filled, NoteFields, type Note } from '../../ui/note.tsx'
import { notify } from '../../ui/notice.tsx'
import { Fault } from '../../ui/problem.tsx'
import { branch, loadBranches } from './branch.ts'
import { columns, download, importFile, type ImportAnswer } from './seats/data.ts'
import { Faults } from './seats/faults.tsx'

const largest = 2 * 1024 * 1024 // bytes of a file

interface Chosen {
  name: string
  content: Blob
  lines: readonly string[]
}

/** Section exports the seats as a file, and imports a file after a dry run. */
export function Section(): JSX.Element {
  const text = ts().seats.file
  const code = branch.value?.code ?? ''
  const zone = branch.value?.timezone ?? 'UTC'
  const exporting = useAction()
  const checking = useAction()
  const importing = useAction()
  const chosen = useSignal<Chosen | undefined>(undefined)
  const tooLarge = useSignal(false)
  const answer = useSignal<ImportAnswer | undefined>(undefined)
  const done = useSignal<ImportAnswer | undefined>(undefined)
  const retireMissing = useSignal(false)
  const action = useSignal<Action>('BOOKING_ACTION_KEEP')
  const note = useSignal<Note>({})
  const reason = useSignal('')
  const over = useSignal(false)
  const pasted = useSignal('')
  const wanted = useRef(0)
  const input = useId()
  const result = useRef<HTMLDivElement>(null)

  const options = (): Parameters<typeof importFile>[1] => ({
    retireMissing: retireMissing.value,
    onBookings: action.value,
    note: filled(note.value),
    reason: reason.value.trim(),
  })

  async function choose(name: string, content: Blob): Promise<void> {
    answer.value = done.value = undefined
    tooLarge.value = content.size > largest
    if (tooLarge.value) return
    chosen.value = { name, content, lines: (await content.text()).split(/\r?\n/u) }
    await check()
    // The result is below the form, and often below the window.
    requestAnimationFrame(() => result.current?.scrollIntoView({ block: 'start' }))
  }

  async function check(): Promise<void> {
    answer.value = undefined
    wanted.current++
    if (checking.busy.value) return
    // A choice that the user makes during a check needs another one.
    for (let n = 0; n !== wanted.current;) {
      n = wanted.current
      const file = chosen.value
      if (file === undefined) return
      await checking.run(async () => {
        const a = await importFile(file.content, options())
        if (n !== wanted.current) return
        answer.value = a
        announce(text.sum(number(a.created), number(a.updated), number(a.retired), number(a.same)))
      })
    }
  }

  async function start(): Promise<void> {
    const file = chosen.value
    const checked = answer.value
    if (file === undefined || checked === undefined) return
    const ok = await importing.run(async () => {
      done.value = await importFile(file.content, options(), checked.fingerprint)
      chosen.value = answer.value = undefined
      void loadBranches().catch(() => {}) // only the numbers of the branches
      notify(text.imported(number(checked.created), number(checked.updated), number(checked.retired)))
    })
    if (!ok && importing.problem.value?.reason === 'CHANGED_SINCE_CHECK') await check()
  }

  const file = chosen.value
  const a = answer.value
  const closes =
    a?.changes.some((c) => c.changes.some((f) => f.field === 'out_of_service' && f.to === 'true')) ?? false
  const cancels =
    (a?.impact?.reservations ?? 0) > 0 && (action.value === 'BOOKING_ACTION_CANCEL' || (a?.retired ?? 0) > 0)
  const nothing = a !== undefined && a.created + a.updated + a.retired === 0
  const faults = checking.problem.value?.errors.filter((e) => e.pointer.startsWith('line ')) ?? []
  return (
    <div class="seats-page">
      <section class="card">
        <h2>{text.exportTitle}</h2>
        <p>{text.exportText}</p>
        <div class="row">
          <Button
            busy={exporting.busy.value}
            onClick={() =>
              void exporting.run(async () => {
                const query = { branch: code }
                const content = await call(
                  api.GET('/v1/admin/seats:export', { params: { query }, parseAs: 'blob' }),
                )
                download(`seats-${code}.csv`, content as unknown as Blob)
              })
            }
          >
            {text.export}
          </Button>
          <Button
            onClick={() =>
              download('seats.csv', new Blob(['\ufeff' + header + '\r\n'], { type: 'text/csv' }))
            }
          >
            {text.template}
          </Button>
        </div>
        <Fault problem={exporting.problem.value} />
        <details>
          <summary>{text.columnsTitle}</summary>
          <dl class="columns">
            {(['branch', 'label', ...columns] as const).map((c) => (
              <div key={c}>
                <dt>
                  <code>{c}</code>
                </dt>
                <dd>{text.columns[c]}</dd>
              </div>
            ))}
          </dl>
        </details>
      </section>
      <section class="card">
        <h2>{text.importTitle}</h2>
        <p>{text.importText}</p>
        <label
          class={over.value ? 'drop over' : 'drop'}
          for={input}
          onDragOver={(e) => {
            e.preventDefault()
            over.value = true
          }}
          onDragLeave={() => (over.value = false)}
          onDrop={(e) => {
            e.preventDefault()
            over.value = false
            const dropped = e.dataTransfer?.files[0]
            if (dropped !== undefined) void choose(dropped.name, dropped)
          }}
        >
          <span>{text.choose}</span>
          <input
            id={input}
            type="file"
            accept=".csv,text/csv"
            onChange={(e) => {
              const picked = e.currentTarget.files?.[0]
              if (picked !== undefined) void choose(picked.name, picked)
              e.currentTarget.value = '' // the same file can be chosen again after a correction
            }}
          />
        </label>
        <details>
          <summary>{text.paste}</summary>
          <label class="field">
            {text.pasteLabel}
            <textarea
              rows={6}
              spellcheck={false}
              value={pasted.value}
              onInput={(e) => (pasted.value = e.currentTarget.value)}
            />
          </label>
          <Button
            disabled={pasted.value.trim() === ''}
            onClick={() => void choose(text.pastedName, new Blob([pasted.value]))}
          >
            {text.check}
          </Button>
        </details>
        <label class="choice">
          <input
            type="checkbox"
            checked={retireMissing.value}
            onChange={(e) => {
              retireMissing.value = e.currentTarget.checked
              void check()
            }}
          />
          <span>{text.retireMissing}</span>
        </label>
        {tooLarge.value && (
          <div class="fault" role="alert">
            <p>{text.tooLarge}</p>
          </div>
        )}
      </section>
      <div ref={result} />
      {checking.busy.value && file !== undefined && (
        <p role="status">
          {text.checking(file.name, number(file.lines.length))} <progress />
        </p>
      )}
      {faults.length > 0 && file !== undefined ? (
        <section class="card">
          <h2>{text.faultsTitle(number(faults.length))}</h2>
          <p>{text.faultsText(file.name)}</p>
          <Faults faults={faults} lines={file.lines} />
        </section>
      ) : (
        <Fault problem={checking.problem.value} />
      )}
      {importing.problem.value !== undefined && <Fault problem={importing.problem.value} zone={zone} />}
      {a !== undefined && file !== undefined && (
        <section class="card">
          <h2>{text.resultTitle(file.name)}</h2>
          <p role="status">
            <strong>
              {text.sum(number(a.created), number(a.updated), number(a.retired), number(a.same))}
            </strong>
          </p>
          <Diff changes={a.changes} lines={file.lines} />
          {a.impact !== undefined && (a.retired > 0 || closes) && (
            <ImpactView impact={a.impact} zone={zone} />
          )}
          {closes && (
            <ActionChoice
              value={action.value}
              onChange={(next) => {
                action.value = next
                void check() // the fingerprint is that of a choice
              }}
            />
          )}
          {cancels && (
            <NoteFields
              legend={ts().admin.note.legend}
              value={note.value}
              onChange={(n) => (note.value = n)}
            />
          )}
          {nothing ? (
            <p>{text.nothing}</p>
          ) : (
            <>
              <ReasonField value={reason.value} onChange={(r) => (reason.value = r)} />
              <Button
                kind={cancels ? 'danger' : 'main'}
                busy={importing.busy.value}
                onClick={() => void start()}
              >
                {text.import(number(a.created), number(a.updated), number(a.retired))}
              </Button>
            </>
          )}
        </section>
      )}
      {done.value !== undefined && (
        <p role="status">
          {text.imported(number(done.value.created), number(done.value.updated), number(done.value.retired))}{' '}
          <Link href={`/admin/seats?branch=${code}`}>{text.toSeats}</Link>
        </p>
      )}
    </div>
  )
}

const header = ['branch', 'area', 'label', ...columns.filter((c) => c !== 'area')].join(',')

interface DiffProps {
  changes: readonly Schema<'SeatChange'>[]
  lines: readonly string[]
}

/** Diff shows the lines of a file by what they do. */
function Diff({ changes, lines }: DiffProps): JSX.Element {
  const text = ts().seats.file
  return (
    <>
      {(['CREATE', 'UPDATE', 'RETIRE', 'SAME'] as const).map((action) => {
        const some = changes.filter((c) => c.action === action)
        return some.length === 0 ? null : (
          <Group
            key={action}
            title={text.action[action](number(some.length))}
            changes={some}
            lines={lines}
            open={action !== 'SAME'}
          />
        )
      })}
    </>
  )
}

function Group({ title, changes, lines, open }: DiffProps & { title: string; open: boolean }): JSX.Element {
  const text = ts().seats.file
  const limit = useSignal(100)
  const shown = useSignal(open)
  const several = new Set(changes.map((c) => c.branch)).size > 1
  return (
    <details class="diff" open={open} onToggle={(e) => (shown.value = e.currentTarget.open)}>
      <summary>{title}</summary>
      {shown.value && (
        <div class="scroll" tabIndex={0} role="group" aria-label={title}>
          <table>
            <thead>
              <tr>
                <th scope="col" class="num">
                  {text.line}
                </th>
                {several && <th scope="col">{ts().admin.branch}</th>}
                <th scope="col">{text.seat}</th>
                <th scope="col">{text.what}</th>
              </tr>
            </thead>
            <tbody>
              {changes.slice(0, limit.value).map((c) => (
                <tr key={c.branch + ' ' + c.label}>
                  <td class="num">{c.line === 0 ? '–' : c.line}</td>
                  {several && <td>{c.branch}</td>}
                  <th scope="row">{c.label}</th>
                  <td>
                    {c.action === 'UPDATE' ? (
                      <ul class="plain-list">
                        {c.changes.map((f) => (
                          <li key={f.field}>
                            {text.field(f.field)}: <del>{f.from || t().common.none}</del> →{' '}
                            <ins>{f.to || t().common.none}</ins>
                          </li>
                        ))}
                      </ul>
                    ) : (
                      <code>{lines[c.line - 1] ?? ''}</code>
                    )}
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {shown.value && changes.length > limit.value && (
        <Button onClick={() => (limit.value += 500)}>{t().common.more}</Button>
      )}
    </details>
  )
}
