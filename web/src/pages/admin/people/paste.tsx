import { useSignal } from '@preact/signals'
import type { JSX } from 'preact'
import { api, call } from '../../../api/client.ts'
import { Problem } from '../../../api/problem.ts'
import { ts } from '../../../i18n/text.ts'
import { Button, useAction } from '../../../ui/action.tsx'
import { Field } from '../../../ui/field.tsx'
import { ReasonField } from '../../../ui/impact.tsx'
import { notify } from '../../../ui/notice.tsx'
import { Fault, problemText } from '../../../ui/problem.tsx'
import { parseUsers, type Line, type LineFault } from './csv.ts'

/** A call has at most 64 KiB: 200 users with long names fit. */
const atOnce = 200

interface Checked {
  lines: Line[]
  changed: number
}

/** Paste changes many users by a pasted table: first a check of all lines, then the change. */
export function Paste({ onDone }: { onDone: () => void }): JSX.Element {
  const text = ts().people
  const table = useSignal('')
  const reason = useSignal('')
  const faults = useSignal<readonly { line: number; detail: string }[]>([])
  const checked = useSignal<Checked | undefined>(undefined)
  const check = useAction()
  const change = useAction()

  function edit(value: string): void {
    table.value = value
    checked.value = undefined
    faults.value = []
  }

  async function dryRun(): Promise<void> {
    checked.value = undefined
    const { lines, faults: found } = parseUsers(table.value)
    faults.value = found.map((f: LineFault) => ({ line: f.line, detail: text.lineFault[f.detail] }))
    if (found.length > 0 || lines.length === 0) return
    await check.run(async () => {
      try {
        checked.value = { lines, changed: await send(lines, true, '') }
      } catch (e) {
        if (!(e instanceof LinesProblem)) throw e
        faults.value = e.faults
      }
    })
  }

  async function apply(): Promise<void> {
    const all = checked.value
    if (all === undefined) return
    const done = await change.run(async () => {
      notify(text.changed(await send(all.lines, false, reason.value.trim())))
    })
    if (!done) return
    edit('')
    onDone()
  }

  return (
    <form
      class="stack"
      onSubmit={(e) => {
        e.preventDefault()
        void (checked.value === undefined ? dryRun() : apply())
      }}
    >
      <Field label={text.table} hint={text.tableHint}>
        {(a) => (
          <textarea
            {...a}
            rows={8}
            spellcheck={false}
            class="code"
            placeholder={'student_id,name,email,group,card\nS2021001,,,first-year,20001234'}
            value={table.value}
            onInput={(e) => edit(e.currentTarget.value)}
          />
        )}
      </Field>
      {faults.value.length > 0 && (
        <div class="fault" role="alert">
          <p>{text.faults(faults.value.length)}</p>
          <ul>
            {faults.value.slice(0, 50).map((f) => (
              <li key={`${f.line} ${f.detail}`}>
                {text.line(f.line)}: {f.detail}
              </li>
            ))}
          </ul>
        </div>
      )}
      <Fault problem={check.problem.value ?? change.problem.value} />
      {checked.value !== undefined && (
        <>
          <p role="status">
            <strong>{text.checked(checked.value.lines.length, checked.value.changed)}</strong>
          </p>
          <ReasonField value={reason.value} onChange={(r) => (reason.value = r)} />
        </>
      )}
      <div class="row end">
        <Button
          type="submit"
          kind="main"
          busy={check.busy.value || change.busy.value}
          disabled={table.value.trim() === '' || checked.value?.changed === 0}
        >
          {checked.value === undefined ? text.check : text.apply(checked.value.changed)}
        </Button>
      </div>
    </form>
  )
}

/** LinesProblem is a refusal of the API that names lines of the table. */
class LinesProblem extends Error {
  constructor(readonly faults: { line: number; detail: string }[]) {
    super('some lines are refused')
  }
}

/** send changes the users of all lines, in several calls if there are many, and returns the number of changes. */
async function send(lines: readonly Line[], validateOnly: boolean, reason: string): Promise<number> {
  let total = 0
  const refused: { line: number; detail: string }[] = []
  for (let i = 0; i < lines.length; i += atOnce) {
    const part = lines.slice(i, i + atOnce)
    try {
      const body = { users: part.map((l) => l.user), validateOnly, reason }
      total += (await call(api.POST('/v1/admin/users', { body }))).changed
    } catch (e) {
      if (!(e instanceof Problem)) throw e
      const found = faultsOf(e, part)
      if (found.length === 0 || !validateOnly) throw e
      refused.push(...found)
    }
  }
  if (refused.length > 0) throw new LinesProblem(refused)
  return total
}

/** faultsOf returns the lines that a problem is about: by the index in the field, or by the user in the metadata. */
function faultsOf(p: Problem, part: readonly Line[]): { line: number; detail: string }[] {
  const byField = p.errors.flatMap((f) => {
    const index = /users[[/](\d+)/.exec(f.pointer)?.[1]
    const line = index === undefined ? undefined : part[Number(index)]
    return line === undefined
      ? []
      : [{ line: line.line, detail: `${f.pointer.split(/[./]/).pop() ?? ''} ${f.detail}` }]
  })
  if (byField.length > 0) return byField
  const { student_id: one, student_ids: several } = p.metadata
  const named = (several ?? one ?? '').toLowerCase().split(',')
  return part
    .filter((l) => named.includes(l.user.studentId?.toLowerCase() ?? ''))
    .map((l) => ({ line: l.line, detail: problemText(p) }))
}
