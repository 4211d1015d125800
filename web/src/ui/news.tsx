import { useEffect } from 'preact/hooks'
import type { JSX } from 'preact'
import { byLanguage, t } from '../i18n/text.ts'
import { clock, countdown, dayAndClock } from '../i18n/time.ts'
import { here, Link } from '../router.tsx'
import { loadBranches, branches, zoneOf } from '../state/branches.ts'
import { now } from '../state/clock.ts'
import {
  claim,
  dismiss,
  endedHere,
  leaveWaitlist,
  news,
  offers,
  onNotification,
  reservations,
  type Notification,
  type WaitlistEntry,
} from '../state/mine.ts'
import { Button, useAction } from './action.tsx'
import { alertNow, announce } from './announce.tsx'
import { notify } from './notice.tsx'
import { Fault } from './problem.tsx'

/** newsText returns the text of a notification for a person, in the language of the page. */
export function newsText(n: Notification): string {
  const zone = zoneOf(n.seat?.branch)
  const at = (time: string | undefined): string => (time === undefined ? '' : dayAndClock(time, zone))
  const end = n.endTime === undefined ? '' : clock(n.endTime, zone)
  // A server of a later release may send a kind that this page does not know.
  const text: ((...of: [string, string, string, string]) => string) | undefined = t().now.news[n.kind]
  return text === undefined ? '' : text(n.seat?.label ?? '', at(n.startTime), end, at(n.checkInDeadline))
}

/** News is what the user must learn on every page: offers that expire, and what the library has changed. */
export function News(): JSX.Element | null {
  const all = news.value.filter(matters)
  // The page of the user's own seats shows offers itself.
  const offered = here.value.path === '/me' ? [] : offers.value
  const some = all.length > 0 || offered.length > 0
  useEffect(() => {
    // The times are in the zone of the branch.
    if (some && branches.value.length === 0) void loadBranches().catch(() => {})
  }, [some])
  useEffect(
    () =>
      onNotification((n) => {
        if (n.kind === 'NOTIFICATION_KIND_SEAT_OFFERED') alertNow(newsText(n))
        else if (matters(n)) announce(newsText(n))
        else {
          const told = n.kind === 'NOTIFICATION_KIND_COMPLETED' && endedHere.has(n.reservationId)
          if (!told) notify(newsText(n))
          dismiss(n.id)
        }
      }),
    [],
  )
  if (!some) return null
  return (
    <section class="news" aria-label={t().now.newsTitle}>
      {offered.map((e) => (
        <Offer key={e.id} entry={e} />
      ))}
      {all.map((n) => (
        <Item key={n.id} of={n} />
      ))}
    </section>
  )
}

/** matters tells whether a notification stays until the user dismisses it. */
function matters(n: Notification): boolean {
  if (n.kind === 'NOTIFICATION_KIND_COMPLETED' || n.kind === 'NOTIFICATION_KIND_CHECKED_IN_BY_LIBRARY')
    return false
  // A reminder is of use until the user checks in.
  if (n.kind !== 'NOTIFICATION_KIND_CHECK_IN_REMINDER') return true
  const r = reservations.value.find((other) => other.id === n.reservationId)
  return r?.status === 'RESERVATION_STATUS_CONFIRMED'
}

function Offer({ entry: e }: { entry: WaitlistEntry }): JSX.Element {
  const n = t().now
  const action = useAction()
  const zone = zoneOf(e.seat?.branch)
  const label = e.seat?.label ?? ''
  return (
    <div class="banner offer" role="group" aria-label={n.offer(label)}>
      <p>
        <strong>{n.offer(label)}</strong>{' '}
        {n.offerWindow(dayAndClock(e.startTime ?? 0, zone), clock(e.endTime ?? 0, zone))}{' '}
        <span role="timer">{n.offerLeft(countdown(Date.parse(e.offerExpiresAt ?? '') - now.value))}</span>
      </p>
      <Fault problem={action.problem.value} zone={zone} />
      <div class="row">
        <Button
          kind="main"
          busy={action.busy.value}
          onClick={() =>
            void action.run(async () => {
              const r = await claim(e.id)
              notify(n.booked(label, clock(r?.endTime ?? e.endTime ?? 0, zone)))
            })
          }
        >
          {n.claim}
        </Button>
        <Button busy={action.busy.value} onClick={() => void action.run(() => leaveWaitlist(e.id))}>
          {n.decline}
        </Button>
      </div>
    </div>
  )
}

function Item({ of: n }: { of: Notification }): JSX.Element {
  const note = byLanguage(n.note)
  const other = n.suggestedSeat
  return (
    <div class="banner item">
      <p>
        {newsText(n)} {note}
        {n.reason !== '' && ` ${t().now.reason(n.reason)}`}
      </p>
      {other !== undefined && (
        <Link class="button" href={`/?branch=${other.branch}&seat=${other.id}`}>
          {t().now.suggestion(other.label)}
        </Link>
      )}
      {n.kind === 'NOTIFICATION_KIND_CHECK_IN_REMINDER' && (
        <Link class="button" href="/me">
          {t().common.nav.me}
        </Link>
      )}
      <button class="icon-button" type="button" aria-label={t().common.close} onClick={() => dismiss(n.id)}>
        ×
      </button>
    </div>
  )
}
