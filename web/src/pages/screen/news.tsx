import { useComputed, type ReadonlySignal } from '@preact/signals'
import type { JSX } from 'preact'
import type { Schema } from '../../api/client.ts'
import { language, t, ts } from '../../i18n/text.ts'
import { clock, dateOf, day } from '../../i18n/time.ts'

type Branch = Schema<'Branch'>

const turn = 12_000 // milliseconds for which a language is shown
const soon = 86_400_000 // milliseconds; closures that start later are not shown

/** opening returns whether the branch is open, and until when. */
export function opening(branch: Branch, time: number): string {
  const text = ts().screen
  const at = (when: string): string => clockOrDay(when, time, branch.timezone)
  if (branch.open) return branch.closesAt === undefined ? text.open : text.openUntil(at(branch.closesAt))
  return branch.opensAt === undefined ? text.closed : text.opensAt(at(branch.opensAt))
}

function clockOrDay(when: string, now: number, zone: string): string {
  const at = clock(when, zone)
  return dateOf(when, zone) === dateOf(now, zone) ? at : `${day(when, zone)}, ${at}`
}

/** News shows the announcement and the closures. Texts in several languages take turns. */
export function News({ branch, time }: { branch: Branch; time: ReadonlySignal<number> }): JSX.Element | null {
  const now = useComputed(() => Math.floor(time.value / turn) * turn)
  const closures = branch.closures.filter((c) => Date.parse(c.startTime ?? '') < now.value + soon)
  const languages = languagesOf([branch.announcement, ...closures.map((c) => c.note)])
  if (closures.length === 0 && languages.length === 0) return null
  // A text that changes by itself is a movement: without movements, all languages are shown at once.
  const still = matchMedia('(prefers-reduced-motion: reduce)').matches
  const shown = still ? languages : languages.slice((now.value / turn) % languages.length).slice(0, 1)
  return (
    <div class="wall-news">
      {shown.map(
        (l) =>
          pick(branch.announcement, l) && (
            <p lang={l} key={l}>
              {pick(branch.announcement, l)}
            </p>
          ),
      )}
      {closures.slice(0, 4).map((c) => (
        <p key={c.id} class="wall-closure">
          <b>{closureText(c, now.value, branch.timezone)}</b>
          {shown.map(
            (l) =>
              pick(c.note, l) && (
                <span lang={l} key={l}>
                  {' '}
                  {pick(c.note, l)}
                </span>
              ),
          )}
        </p>
      ))}
    </div>
  )
}

function closureText(c: Schema<'ClosureNotice'>, now: number, zone: string): string {
  const text = ts().screen
  const object =
    c.area !== ''
      ? text.closedArea(c.area)
      : c.seatIds.length > 0
        ? text.closedSeats(c.seatIds.length)
        : text.closedBranch
  const at = (when: string): string => clockOrDay(when, now, zone)
  const begins = Date.parse(c.startTime ?? '') > now
  const start = begins ? at(c.startTime ?? '') : ''
  const end = c.endTime === undefined ? '' : at(c.endTime)
  if (begins && end !== '') return `${object}: ${t().common.span(start, end)}`
  if (begins) return `${object}: ${text.from(start)}`
  return end === '' ? object : `${object}: ${t().common.until(end)}`
}

/** languagesOf returns the languages of some texts, that of the page first. */
function languagesOf(texts: readonly (Readonly<Record<string, string>> | undefined)[]): string[] {
  const all = [...new Set(texts.flatMap((x) => Object.keys(x ?? {})))].sort()
  return all.sort((a, b) => Number(b === language.value) - Number(a === language.value))
}

/** pick returns a text in a language, or in any if it does not have this one. */
function pick(texts: Readonly<Record<string, string>> | undefined, l: string): string {
  return texts?.[l] ?? ''
}
