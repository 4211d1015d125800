import type { JSX } from 'preact'
import { t } from '../../i18n/text.ts'
import { Button } from '../../ui/action.tsx'
import { forgetBooking, type Booking } from './booking.ts'

/** Sending tells that the answer is awaited, and after a while that it is not known what happened. */
export function Sending({ booking: b }: { booking: Extract<Booking, { state: 'sending' }> }): JSX.Element {
  const n = t().now
  return (
    <div role="status" class="sending">
      <p class="row"><span class="spinner" aria-hidden="true" /> {n.sending(b.wish.label)}</p>
      {b.slow && (
        <>
          <p class="fault">{navigator.onLine ? '' : t().common.offline} {n.unknown}</p>
          <Button onClick={forgetBooking}>{n.stopAsking}</Button>
        </>
      )}
    </div>
  )
}
