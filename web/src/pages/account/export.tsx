import { useSignal } from '@preact/signals'
import type { JSX } from 'preact'
import { authorization, reportProblem } from '../../api/client.ts'
import { Problem } from '../../api/problem.ts'
import { t } from '../../i18n/text.ts'
import { number } from '../../i18n/time.ts'
import { account } from '../../state/session.ts'
import { announce } from '../../ui/announce.tsx'
import { Button, useAction } from '../../ui/action.tsx'
import { Fault } from '../../ui/problem.tsx'

/** Export lets a user download what the library has stored about them. */
export function Export(): JSX.Element {
  const { busy, problem, run } = useAction()
  const text = useSignal('')
  const a = t().account

  const save = async (): Promise<void> => {
    text.value = ''
    const file = await read((bytes) => {
      text.value = t().account.downloading(size(bytes))
    })
    offer(file, `library-${account.value?.user.studentId ?? 'data'}.json`)
    text.value = t().account.downloaded(size(file.size))
    announce(text.value)
  }

  return (
    <section class="card" aria-labelledby="export">
      <h2 id="export">{a.data}</h2>
      <p>{a.dataText}</p>
      <div class="row">
        <Button busy={busy.value} onClick={() => void run(save)}>
          {a.download}
        </Button>
        {problem.value === undefined && <span class="quiet">{text.value}</span>}
      </div>
      <Fault problem={problem.value} />
    </section>
  )
}

/**
 * read downloads the document. A link cannot do it, since the token travels in a header. If the server
 * cannot complete the document, it breaks the connection, so a part is never saved as the whole.
 */
async function read(progress: (bytes: number) => void): Promise<Blob> {
  const headers = authorization()
  let response: Response
  const parts: Uint8Array<ArrayBuffer>[] = []
  try {
    response = await fetch('/v1/auth/export', { headers, cache: 'no-store' })
    if (response.ok && response.body !== null) {
      let bytes = 0
      const reader = response.body.getReader()
      for (;;) {
        const { done, value } = await reader.read()
        if (done) break
        parts.push(value)
        bytes += value.length
        progress(bytes)
      }
    }
  } catch {
    throw Problem.offline()
  }
  if (!response.ok) {
    const problem = Problem.from(response, await response.json().catch(() => null))
    reportProblem(problem, headers['Authorization'] ?? '')
    throw problem
  }
  return new Blob(parts, { type: 'application/json' })
}

/** offer saves a file under a name, as a download does. */
function offer(file: Blob, name: string): void {
  const url = URL.createObjectURL(file)
  const link = document.createElement('a')
  link.href = url
  link.download = name
  link.click()
  setTimeout(() => URL.revokeObjectURL(url), 60_000) // the browser reads it a little later
}

function size(bytes: number): string {
  return bytes < 1_000_000
    ? number(Math.ceil(bytes / 1000), { style: 'unit', unit: 'kilobyte' })
    : number(bytes / 1_000_000, { style: 'unit', unit: 'megabyte', maximumFractionDigits: 1 })
}
