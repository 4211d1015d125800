import { useSignal } from '@preact/signals'
import type { JSX } from 'preact'
import { t } from '../../i18n/text.ts'
import { clock, countdown } from '../../i18n/time.ts'
import { zoneOf } from '../../state/branches.ts'
import { now } from '../../state/clock.ts'
import { claim, leaveWaitlist, type WaitlistEntry } from '../../state/mine.ts'
import { account } from '../../state/session.ts'
import { Button, useAction } from '../../ui/action.tsx'
import { notify } from '../../ui/notice.tsx'
import { Fault } from '../../ui/problem.tsx'
import { Confirm } from './confirm.tsx'
import { Place } from './present.tsx'
import { ms, span } from './times.ts'

/** Offer is a seat that is held for the user until they claim it, or until the time is over. */
export function Offer({ entry: e }: { entry: WaitlistEntry }): JSX.Element {
  const zone = zoneOf(e.seat?.branch)
  const label = e.seat?.label ?? ''
  const expires = ms(e.offerExpiresAt)
  const open = expires > now.value
  const claiming = useAction()
  const declining = useAction()
  const m = t().me
  return (
    <section class="card offer" aria-labelledby={`offer-${e.id}`}>
      <header>
        <h2 id={`offer-${e.id}`}>{m.offerTitle(label)}</h2>
        <span class="tag warn">{t().common.status.RESERVATION_STATUS_HELD}</span>
      </header>
      <p>
        <Place seat={e.seat} />
      </p>
      <p>{span(e.startTime, e.endTime, zone)}</p>
      {open ? (
        <p class="deadline">
          {m.offerUntil(clock(expires, zone))}{' '}
          <span role="timer" class="timer">
            {countdown(expires - now.value)}
          </span>
        </p>
      ) : (
        <p>{t().errors.OFFER_EXPIRED}</p>
      )}
      {open && account.value && (
        <div class="row">
          <Button
            kind="main"
            busy={claiming.busy.value}
            onClick={() =>
              void claiming.run(async () => {
                await claim(e.id)
                notify(t().me.claimed(label))
              })
            }
          >
            {m.claim}
          </Button>
          <Button
            busy={declining.busy.value}
            onClick={() =>
              void declining.run(async () => {
                await leaveWaitlist(e.id)
                notify(t().me.declined(label))
              })
            }
          >
            {m.decline}
          </Button>
        </div>
      )}
      <Fault problem={claiming.problem.value ?? declining.problem.value} zone={zone} />
    </section>
  )
}

/** Waiting is a place in the waitlist of a seat. */
export function Waiting({ entry: e }: { entry: WaitlistEntry }): JSX.Element {
  const confirm = useSignal(false)
  const zone = zoneOf(e.seat?.branch)
  const label = e.seat?.label ?? ''
  const m = t().me
  return (
    <li class="card seat-item">
      <div>
        <h3>{m.seat(label)}</h3>
        <p>{span(e.startTime, e.endTime, zone)}</p>
        <p>
          <small>
            <Place seat={e.seat} />
          </small>
        </p>
        <p>{m.position(e.position)}</p>
      </div>
      {account.value && (
        <Button
          label={`${m.leaveWaitlist}: ${m.seat(label)}`}
          onClick={() => {
            confirm.value = true
          }}
        >
          {m.leaveWaitlist}
        </Button>
      )}
      {confirm.value && (
        <Confirm
          title={m.leaveWaitlistTitle(label)}
          action={m.leaveWaitlist}
          zone={zone}
          onClose={() => {
            confirm.value = false
          }}
          run={async () => {
            await leaveWaitlist(e.id)
            notify(t().me.leftWaitlist(label))
          }}
        >
          <p>{m.leaveWaitlistText}</p>
        </Confirm>
      )}
    </li>
  )
}
