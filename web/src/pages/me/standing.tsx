import { signal } from '@preact/signals'
import type { JSX } from 'preact'
import { api, call, type Schema } from '../../api/client.ts'
import { t } from '../../i18n/text.ts'
import { day, dayAndClock } from '../../i18n/time.ts'
import { branchOf, zoneOf } from '../../state/branches.ts'
import { now } from '../../state/clock.ts'
import { ms } from './times.ts'

type Strike = Schema<'Strike'>

/** standing is the user's strikes and suspension; undefined: not known. */
export const standing = signal<Schema<'GetStandingResponse'> | undefined>(undefined)

/** loadStanding reads the strikes and the suspension. */
export async function loadStanding(): Promise<void> {
  standing.value = await call(api.GET('/v1/standing'))
}

/** Suspension tells a suspended user until when, and where to ask. */
export function Suspension(): JSX.Element | null {
  const s = standing.value
  if (s?.suspendedUntil === undefined || ms(s.suspendedUntil) <= now.value) return null
  const zone = zoneOf(s.askAtBranch)
  return (
    <section class="card suspended" aria-labelledby="suspended">
      <h2 id="suspended">{t().me.suspended(dayAndClock(s.suspendedUntil, zone))}</h2>
      <p>{t().me.suspendedText}</p>
      {s.askAtBranch !== '' && <p>{t().me.ask(nameOf(s.askAtBranch))}</p>}
    </section>
  )
}

/** Strikes lists reservations that the user did not use. Without one there is nothing to tell. */
export function Strikes(): JSX.Element | null {
  const s = standing.value
  if (s === undefined || s.strikes.length === 0) return null
  const m = t().me
  const counting = s.strikes.filter((strike) => strike.counts).length
  return (
    <section aria-labelledby="strikes">
      <h2 id="strikes">{m.strikes}</h2>
      <p>
        {m.strikesText(counting)} {s.askAtBranch !== '' && m.ask(nameOf(s.askAtBranch))}
      </p>
      <ul class="plain-list history">
        {s.strikes.map((strike) => (
          <li key={strike.id}>
            <p>{m.strikeAt(dayAndClock(ms(strike.at), zoneOf(strike.branch)), nameOf(strike.branch))}</p>
            <p class="quiet">
              <small>{state(strike)}</small>
            </p>
          </li>
        ))}
      </ul>
    </section>
  )
}

function nameOf(branch: string): string {
  return branchOf(branch)?.name ?? branch
}

function state(s: Strike): string {
  const m = t().me
  const zone = zoneOf(s.branch)
  if (s.forgivenAt !== undefined) return m.strikeForgiven(day(s.forgivenAt, zone), s.reason)
  if (s.counts) return m.strikeCounts(day(ms(s.expiresAt), zone))
  return ms(s.expiresAt) <= now.value ? m.strikeExpired : m.strikeUsed
}
