import { useSignal } from '@preact/signals'
import type { JSX } from 'preact'
import { api, call, type Schema } from '../../api/client.ts'
import { ts } from '../../i18n/text.ts'
import { addDays, dateOf, dayAndClock, instant } from '../../i18n/time.ts'
import { zoneOf } from '../../state/branches.ts'
import { serverNow } from '../../state/clock.ts'
import { notify } from '../../ui/notice.tsx'
import { Act, seatLabel, spanOf } from './act.tsx'
import { BookFor } from './book.tsx'
import { SuspendFields } from './forgive.tsx'
import { branch } from './scope.ts'

/** Open is the dialog that is open. */
export type Open =
  | { kind: 'book' | 'suspend' | 'lift' }
  | { kind: 'close'; reservations: number; entries: number }
  | { kind: 'checkIn' | 'checkOut' | 'cancel'; reservation: Schema<'Reservation'> }
  | { kind: 'forgive'; strike: Schema<'Strike'> }

interface DialogsProps {
  person: Schema<'Person'>
  open: Open | undefined
  onDone: () => void
  onClose: () => void
}

/** Dialogs shows the dialog that is open. */
export function Dialogs({ person, open, onDone, onClose }: DialogsProps): JSX.Element | null {
  const text = ts().desk
  const zone = zoneOf(branch.value?.code)
  const today = dateOf(serverNow(), zone)
  const lastDay = useSignal(addDays(today, 7))
  if (open === undefined) return null
  const user = { path: { userId: person.id } }
  const done = (message: string): void => {
    notify(message)
    onDone()
  }
  switch (open.kind) {
    case 'book':
      return <BookFor person={person} onClose={onClose} onBooked={onDone} />
    case 'checkIn':
    case 'checkOut':
    case 'cancel': {
      const r = open.reservation
      const at = { params: { path: { reservationId: r.id } } }
      const held = r.status === 'RESERVATION_STATUS_HELD'
      const common = { zone: zoneOf(r.seat?.branch), seen: true, reason: text.reasons[open.kind], onClose }
      if (open.kind === 'checkIn') {
        return (
          <Act
            {...common}
            title={text.checkInPerson(person.name, seatLabel(r))}
            confirm={text.checkIn}
            run={async (reason) => {
              await call(
                api.POST('/v1/desk/reservations/{reservationId}:checkIn', { ...at, body: { reason } }),
              )
              done(text.checkedIn(person.name, seatLabel(r)))
            }}
          />
        )
      }
      if (open.kind === 'checkOut') {
        return (
          <Act
            {...common}
            title={text.checkOutPerson(person.name, seatLabel(r))}
            text={text.checkOutText(seatLabel(r))}
            confirm={text.checkOut}
            run={async (reason) => {
              await call(
                api.POST('/v1/desk/reservations/{reservationId}:checkOut', { ...at, body: { reason } }),
              )
              done(text.checkedOut(person.name, seatLabel(r)))
            }}
          />
        )
      }
      return (
        <Act
          {...common}
          title={held ? text.declineOffer : text.cancelReservation}
          text={held ? text.declineText(seatLabel(r), spanOf(r)) : text.cancelText(seatLabel(r), spanOf(r))}
          confirm={held ? text.declineOffer : text.cancelReservation}
          danger
          run={async (reason) => {
            await call(api.POST('/v1/desk/reservations/{reservationId}:cancel', { ...at, body: { reason } }))
            done(held ? text.declined : text.cancelled)
          }}
        />
      )
    }
    case 'forgive':
      return (
        <Act
          title={text.forgiveOne(dayAndClock(open.strike.at ?? '', zoneOf(open.strike.branch)))}
          text={text.forgiveOneText}
          confirm={text.forgive}
          onClose={onClose}
          run={async (reason) => {
            await call(api.POST('/v1/desk/strikes:forgive', { body: { strikeId: open.strike.id, reason } }))
            done(text.forgaveOne)
          }}
        />
      )
    case 'suspend':
      return (
        <Act
          title={text.suspendTitle(person.name)}
          text={text.suspendText}
          confirm={text.suspend}
          danger
          zone={zone}
          onClose={onClose}
          run={async (reason) => {
            const until = instant(addDays(lastDay.value, 1), '00:00', zone).toISOString()
            await call(api.POST('/v1/desk/users/{userId}:suspend', { params: user, body: { until, reason } }))
            done(text.suspended(dayAndClock(until, zone)))
          }}
        >
          <SuspendFields day={lastDay} first={today} />
        </Act>
      )
    case 'lift':
      return (
        <Act
          title={text.lift}
          text={text.liftText}
          confirm={text.lift}
          reason={text.reasons.lift}
          onClose={onClose}
          run={async (reason) => {
            await call(api.POST('/v1/desk/users/{userId}:suspend', { params: user, body: { reason } }))
            done(text.lifted)
          }}
        />
      )
    case 'close':
      return (
        <Act
          title={text.close}
          text={text.closeText(open.reservations, open.entries)}
          confirm={text.close}
          danger
          onClose={onClose}
          run={async (reason) => {
            await call(api.POST('/v1/desk/users/{userId}:close', { params: user, body: { reason } }))
            done(text.closed)
          }}
        />
      )
  }
}
