import { api, call } from '../../api/client.ts'
import { asProblem } from '../../api/problem.ts'
import { endedHere, loadMine, putReservation, type Reservation } from '../../state/mine.ts'

/** The actions at a reservation. Each is safe to repeat, and shows its answer on every page at once. */

type Answer = Promise<{ reservation?: Reservation }>

async function act(answer: Answer): Promise<Reservation> {
  try {
    const { reservation } = await answer
    if (reservation === undefined) throw new Error('the answer has no reservation')
    putReservation(reservation)
    return reservation
  } catch (e) {
    // The reservation may differ from the one that the user saw.
    if (!asProblem(e).temporary) void loadMine()
    throw e
  }
}

/** Codes are what proves that the user is in the library. Empty: none. */
export interface Codes {
  presenceCode: string
  labelCode: string
}

/** checkIn checks the user in. */
export function checkIn(
  id: string,
  codes: Codes = { presenceCode: '', labelCode: '' },
): Promise<Reservation> {
  const params = { path: { reservationId: id } }
  return act(call(api.POST('/v1/reservations/{reservationId}:checkIn', { params, body: codes })))
}

/** checkOut ends a reservation now. */
export function checkOut(id: string): Promise<Reservation> {
  endedHere.add(id)
  const params = { path: { reservationId: id } }
  return act(call(api.POST('/v1/reservations/{reservationId}:checkOut', { params, body: {} })))
}

/** extend moves the end of a reservation. */
export function extend(id: string, endTime: string): Promise<Reservation> {
  const params = { path: { reservationId: id } }
  const body = { endTime, validateOnly: false }
  return act(call(api.POST('/v1/reservations/{reservationId}:extend', { params, body })))
}

/** checkExtension fails with the problem that an extension would have. It changes nothing. */
export async function checkExtension(id: string, endTime: string): Promise<void> {
  const params = { path: { reservationId: id } }
  await call(
    api.POST('/v1/reservations/{reservationId}:extend', { params, body: { endTime, validateOnly: true } }),
  )
}
