import type { JSX } from 'preact'
import type { Problem } from '../api/problem.ts'
import { t } from '../i18n/text.ts'
import { dayAndClock } from '../i18n/time.ts'

/** problemText returns the text of a problem for a person, in the language of the page. */
export function problemText(p: Problem, zone = 'UTC'): string {
  const e = t().errors
  switch (p.reason) {
    case 'TOKEN_MISSING':
    case 'TOKEN_INVALID':
    case 'TOKEN_EXPIRED':
    case 'TOKEN_REVOKED':
      return e.TOKEN
    case 'RATE_LIMITED':
      return e.RATE_LIMITED(p.retryAfter ?? 60)
    case 'TOO_MANY_RESERVATIONS':
      return e.TOO_MANY_RESERVATIONS(p.metadata['limit'] ?? '')
    case 'SUSPENDED':
      return e.SUSPENDED(dayAndClock(p.metadata['suspended_until'] ?? '', zone))
    case 'CHECK_IN_TOO_EARLY':
      return p.metadata['check_in_opens_at'] === undefined
        ? e.other(p.detail)
        : e.CHECK_IN_TOO_EARLY(dayAndClock(p.metadata['check_in_opens_at'], zone))
  }
  const text = (e as unknown as Record<string, unknown>)[p.reason]
  if (typeof text === 'string') return text
  return e.other(p.detail)
}

/** Fault shows a problem beside the control that caused it, with the id of the request for errors of the server. */
export function Fault({
  problem,
  zone,
  marked = () => false,
}: {
  problem: Problem | undefined
  zone?: string
  /** marked tells whether the form shows the fault of a pointer at its field. */
  marked?: (pointer: string) => boolean
}): JSX.Element | null {
  if (problem === undefined) return null
  const others = problem.errors.filter((f) => !marked(f.pointer))
  return (
    <div class="fault" role="alert">
      <p>{problemText(problem, zone)}</p>
      {others.length > 0 && (
        <ul>
          {others.slice(0, 10).map((f) => (
            <li key={f.pointer + f.detail}>
              {f.pointer.replace('#/', '')}: {f.detail}
            </li>
          ))}
        </ul>
      )}
      {problem.status >= 500 && problem.requestId !== '' && (
        <small>{t().errors.requestId(problem.requestId)}</small>
      )}
    </div>
  )
}
