import { useComputed, useSignal } from '@preact/signals'
import { useEffect } from 'preact/hooks'
import type { JSX } from 'preact'
import { api, call, type Schema } from '../../api/client.ts'
import { asProblem, type Problem } from '../../api/problem.ts'
import { t } from '../../i18n/text.ts'
import { clock } from '../../i18n/time.ts'
import { zoneOf } from '../../state/branches.ts'
import { mine, onNotification, type Reservation } from '../../state/mine.ts'
import { Button, useAction } from '../../ui/action.tsx'
import { Fault } from '../../ui/problem.tsx'
import { Place } from './present.tsx'
import { ms, spanWithDay } from './times.ts'

const pageSize = 10

/** History lists the user's reservations that ended in the past 30 days, in pages, with what proved each check-in. */
export function History(): JSX.Element {
  const items = useSignal<readonly Reservation[] | undefined>(undefined)
  const next = useSignal('')
  const news = useSignal(0)
  const more = useAction()
  const problem = useSignal<Problem | undefined>(undefined)
  // A reservation that ends moves here: read again when the present ones change, or when one has ended at once.
  const present = useComputed(() => mine.value?.reservations.map((r) => r.id + r.status).join())
  useEffect(() => onNotification(() => news.value++), [])
  useEffect(() => {
    if (present.value === undefined) return
    let current = true
    page('').then(
      (answer) => {
        if (!current) return
        items.value = answer.reservations
        next.value = answer.nextPageToken
        problem.value = undefined
      },
      (e: unknown) => {
        if (current) problem.value = asProblem(e)
      },
    )
    return () => {
      current = false
    }
  }, [present.value, news.value])

  const readMore = async (): Promise<void> => {
    const before = items.value
    const answer = await page(next.value)
    if (items.value !== before) return // the list was read again meanwhile
    items.value = [...(before ?? []), ...answer.reservations]
    next.value = answer.nextPageToken
  }

  const m = t().me
  return (
    <section aria-labelledby="history">
      <h2 id="history">{m.history}</h2>
      {items.value === undefined && problem.value === undefined && (
        <p class="loading" role="status">
          {t().common.loading}
        </p>
      )}
      {items.value?.length === 0 && <p class="quiet">{m.historyEmpty}</p>}
      <ul class="plain-list history">
        {(items.value ?? []).map((r) => (
          <Past key={r.id} reservation={r} />
        ))}
      </ul>
      <Fault problem={problem.value ?? more.problem.value} />
      {next.value !== '' && (
        <Button busy={more.busy.value} onClick={() => void more.run(readMore)}>
          {t().common.more}
        </Button>
      )}
    </section>
  )
}

function page(pageToken: string): Promise<Schema<'GetReservationsResponse'>> {
  const query = { view: 'RESERVATION_VIEW_HISTORY' as const, pageSize, pageToken }
  return call(api.GET('/v1/reservations', { params: { query } }))
}

const tags: Partial<Record<Reservation['status'], string>> = {
  RESERVATION_STATUS_NO_SHOW: 'taken',
  RESERVATION_STATUS_COMPLETED: 'free',
}

function Past({ reservation: r }: { reservation: Reservation }): JSX.Element {
  const zone = zoneOf(r.seat?.branch)
  const m = t().me
  const completed = r.status === 'RESERVATION_STATUS_COMPLETED' && r.endedAt !== undefined
  const status = r.endedByLibrary
    ? m.byLibrary(r.status === 'RESERVATION_STATUS_CANCELLED')
    : t().common.status[r.status]
  const early = completed && ms(r.endedAt) < ms(r.endTime) - 60_000
  return (
    <li>
      <p>
        <strong>{m.seat(r.seat?.label ?? '')}</strong>{' '}
        <span class={`tag ${tags[r.status] ?? ''}`}>{status}</span>
      </p>
      <p>{spanWithDay(r.startTime, r.endTime, zone)}</p>
      <p class="quiet">
        <small>
          <Place seat={r.seat} />
          {r.checkedInAt !== undefined && (
            <>
              {' '}
              · {m.checkedInAt(clock(r.checkedInAt, zone))} {proof(r)}
            </>
          )}
          {early && <> · {m.leftAt(clock(r.endedAt ?? '', zone))}</>}
        </small>
      </p>
    </li>
  )
}

function proof(r: Reservation): string {
  const text = t().me.proof[r.proof]
  return r.screen === '' ? text : `${text} (${r.screen})`
}
