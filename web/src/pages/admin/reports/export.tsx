import { useSignal } from '@preact/signals'
import { useEffect, useRef } from 'preact/hooks'
import type { JSX } from 'preact'
import { authorization, reportProblem } from '../../../api/client.ts'
import { Problem } from '../../../api/problem.ts'
import { t, ts } from '../../../i18n/text.ts'
import { number } from '../../../i18n/time.ts'
import { Button, useAction } from '../../../ui/action.tsx'
import { saveFile } from '../../../ui/chart.tsx'
import { notify } from '../../../ui/notice.tsx'
import { Fault } from '../../../ui/problem.tsx'
import type { UsageQuery } from './usage.ts'

/** Export saves the reservations of the report's days as a file. The server does not know its size before its end. */
export function Export({ query }: { query: UsageQuery }): JSX.Element {
  const text = ts().reports
  const action = useAction()
  const bytes = useSignal(0)
  const cancel = useRef<AbortController | undefined>(undefined)
  useEffect(() => () => cancel.current?.abort(), [])

  function start(): void {
    const mine = new AbortController()
    cancel.current = mine
    bytes.value = 0
    void action.run(async () => {
      const content = await download(query, mine.signal, (n) => (bytes.value = n))
      if (content === undefined) return
      saveFile(`reservations-${query.branch}-${query.from}-${query.to}.csv`, content)
      notify(text.exported(size(content.size)))
    })
  }

  return (
    <section class="card" aria-labelledby="export-title">
      <h2 id="export-title">{text.export}</h2>
      <p>
        <small>{text.exportHint}</small>
      </p>
      <div class="row">
        <Button busy={action.busy.value} onClick={start}>
          {text.exportStart}
        </Button>
        {action.busy.value && (
          <>
            <span role="status">{text.exporting(size(bytes.value))}</span>
            <Button onClick={() => cancel.current?.abort()}>{t().common.cancel}</Button>
          </>
        )}
      </div>
      <Fault problem={action.problem.value} />
    </section>
  )
}

function size(bytes: number): string {
  return `${number(bytes / 1024, { maximumFractionDigits: 0 })} KiB`
}

/** download returns the file; undefined: the user has cancelled it. A file that breaks off is an error. */
async function download(
  q: UsageQuery,
  signal: AbortSignal,
  progress: (bytes: number) => void,
): Promise<Blob | undefined> {
  const query = new URLSearchParams({ from: q.from, to: q.to, branch: q.branch })
  try {
    const headers = authorization()
    const response = await fetch(`/v1/reports/reservations:export?${query}`, { headers, signal })
    if (!response.ok || response.body === null) {
      const p = Problem.from(response, await response.json().catch(() => null))
      reportProblem(p, headers['Authorization'])
      throw p
    }
    const reader = response.body.getReader()
    const parts: BlobPart[] = []
    let bytes = 0
    for (;;) {
      const { done, value } = await reader.read()
      if (done) return new Blob(parts, { type: 'text/csv;charset=utf-8' })
      parts.push(value as BlobPart)
      progress((bytes += value.byteLength))
    }
  } catch (e) {
    if (signal.aborted) return undefined
    throw e instanceof Problem ? e : Problem.offline()
  }
}
