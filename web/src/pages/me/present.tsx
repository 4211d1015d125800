import { useSignal } from '@preact/signals'
import { useRef } from 'preact/hooks'
import type { JSX } from 'preact'
import { t } from '../../i18n/text.ts'
import { clock, countdown } from '../../i18n/time.ts'
import { branchOf, zoneOf } from '../../state/branches.ts'
import { now } from '../../state/clock.ts'
import { cancel, type Reservation } from '../../state/mine.ts'
import { account } from '../../state/session.ts'
import { Button } from '../../ui/action.tsx'
import { notify } from '../../ui/notice.tsx'
import { checkOut } from './actions.ts'
import { CheckIn } from './check-in.tsx'
import { Confirm } from './confirm.tsx'
import { Extend } from './extend.tsx'
import { ms, span } from './times.ts'

/** Place is where a seat is, in words: its branch and area. */
export function Place({ seat }: { seat: Reservation['seat'] }): JSX.Element {
  return <>{[branchOf(seat?.branch)?.name ?? seat?.branch, seat?.area].filter(Boolean).join(' · ')}</>
}

/** Present is the reservation of this moment: check in, extend, leave or cancel. */
export function Present({ reservation: r }: { reservation: Reservation }): JSX.Element {
  const zone = zoneOf(r.seat?.branch)
  const here = r.status === 'RESERVATION_STATUS_CHECKED_IN'
  const c = t().common
  return (
    <section class="card present" aria-labelledby={`present-${r.id}`}>
      <header>
        <h2 id={`present-${r.id}`}>{t().me.seat(r.seat?.label ?? '')}</h2>
        <span class={`tag ${here ? 'free' : 'mine'}`}>{c.status[r.status]}</span>
      </header>
      <p>
        <Place seat={r.seat} />
      </p>
      <p>{span(r.startTime, r.endTime, zone)}</p>
      {here ? <Stay reservation={r} /> : <CheckIn reservation={r} />}
      {account.value && <Actions reservation={r} />}
    </section>
  )
}

/** Stay is the time that is left, as a number and as a bar. */
function Stay({ reservation: r }: { reservation: Reservation }): JSX.Element {
  const start = Math.max(ms(r.startTime), ms(r.checkedInAt))
  const end = ms(r.endTime)
  const left = Math.max(0, end - now.value)
  return (
    <div class="time-left">
      <span role="timer" class="timer large">
        {countdown(left)}
      </span>{' '}
      {t().me.left}
      <progress max={Math.max(1, end - start)} value={left} aria-hidden="true" />
    </div>
  )
}

function Actions({ reservation: r }: { reservation: Reservation }): JSX.Element {
  const open = useSignal<'' | 'extend' | 'leave' | 'cancel'>('')
  const zone = zoneOf(r.seat?.branch)
  const label = r.seat?.label ?? ''
  const here = r.status === 'RESERVATION_STATUS_CHECKED_IN'
  const m = t().me
  const ref = useRef<HTMLDivElement>(null)
  const close = (): void => {
    const back = open.value === 'extend'
    open.value = ''
    if (back) requestAnimationFrame(() => ref.current?.querySelector('button')?.focus())
  }
  if (open.value === 'extend') return <Extend reservation={r} onDone={close} />
  return (
    <div ref={ref} class="row present-actions">
      <Button
        onClick={() => {
          open.value = 'extend'
        }}
      >
        {m.extend}
      </Button>
      <Button
        kind="danger"
        onClick={() => {
          open.value = here ? 'leave' : 'cancel'
        }}
      >
        {here ? m.leave : m.cancel}
      </Button>
      {open.value === 'leave' && (
        <Confirm
          title={m.leaveTitle(label)}
          action={m.leave}
          zone={zone}
          onClose={close}
          run={async () => {
            await checkOut(r.id)
            notify(t().me.left_(label))
          }}
        >
          <p>{m.leaveText(clock(ms(r.endTime), zone))}</p>
        </Confirm>
      )}
      {open.value === 'cancel' && <ConfirmCancel reservation={r} onClose={close} />}
    </div>
  )
}

interface ConfirmCancelProps {
  reservation: Reservation
  onClose: () => void
}

/** ConfirmCancel asks before a reservation is cancelled. */
export function ConfirmCancel({ reservation: r, onClose }: ConfirmCancelProps): JSX.Element {
  const zone = zoneOf(r.seat?.branch)
  const label = r.seat?.label ?? ''
  return (
    <Confirm
      title={t().me.cancelTitle(label)}
      action={t().me.cancel}
      zone={zone}
      onClose={onClose}
      run={async () => {
        await cancel(r.id)
        notify(t().me.cancelled(label))
      }}
    >
      <p>{span(r.startTime, r.endTime, zone)}</p>
      <p>{t().me.cancelText}</p>
    </Confirm>
  )
}
