import type { JSX } from 'preact'
import { ts } from '../../i18n/text.ts'
import { branch } from './branch.ts'
import { Days } from './hours/days.tsx'
import { Week } from './hours/week.tsx'

/** Section is the opening hours of a branch: the week, and the dates with other hours. */
export function Section(): JSX.Element | null {
  const b = branch.value
  if (b === undefined) return null
  return (
    <>
      <p>
        <small>{ts().hours.zone(b.timezone)}</small>
      </p>
      {/* After a save the forms begin again with what is stored. */}
      <Week key={JSON.stringify(b.hours)} branch={b} />
      <Days branch={b} />
    </>
  )
}
