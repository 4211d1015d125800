import type { JSX } from 'preact'
import { useRef } from 'preact/hooks'
import { api, call } from '../../../api/client.ts'
import { ts } from '../../../i18n/text.ts'
import { ImpactDialog, type Change, type Impact } from '../../../ui/impact.tsx'
import { notify } from '../../../ui/notice.tsx'
import { branch } from '../branch.ts'
import { retireLimit, type SeatRow } from './data.ts'

interface RetireDialogProps {
  rows: readonly SeatRow[]
  onDone: () => void
  onClose: () => void
}

/** RetireDialog retires seats, after it has shown the reservations that this cancels. */
export function RetireDialog({ rows, onDone, onClose }: RetireDialogProps): JSX.Element {
  const text = ts().seats.retire
  const expected = useRef<number[]>([])

  async function send({ validateOnly, note, reason }: Change): Promise<Impact> {
    const impacts: Impact[] = []
    for (let from = 0; from < rows.length; from += retireLimit) {
      const seatIds = rows.slice(from, from + retireLimit).map((r) => r.id)
      const expectedReservations = validateOnly ? 0 : (expected.current[impacts.length] ?? 0)
      const answer = await call(
        api.POST('/v1/admin/branches/{branch}/seats:retire', {
          params: { path: { branch: branch.value?.code ?? '' } },
          body: { seatIds, expectedReservations, note, reason, validateOnly },
        }),
      )
      if (answer.impact !== undefined) impacts.push(answer.impact)
    }
    if (validateOnly) expected.current = impacts.map((i) => i.reservations)
    return sum(impacts)
  }

  return (
    <ImpactDialog
      title={text.title(rows.length)}
      zone={branch.value?.timezone ?? 'UTC'}
      send={send}
      confirm={text.confirm}
      action="BOOKING_ACTION_CANCEL"
      onDone={() => {
        notify(text.done(rows.length))
        onDone()
      }}
      onClose={onClose}
    >
      <p>
        {text.text(
          rows
            .slice(0, 20)
            .map((r) => r.label)
            .join(', ') + (rows.length > 20 ? ' …' : ''),
        )}
      </p>
    </ImpactDialog>
  )
}

/** sum returns the impact of several calls: each takes at most 500 seats. */
function sum(impacts: readonly Impact[]): Impact {
  const days = new Map<string, number>()
  for (const d of impacts.flatMap((i) => i.days)) days.set(d.day, (days.get(d.day) ?? 0) + d.reservations)
  const total = (f: (i: Impact) => number): number => impacts.reduce((n, i) => n + f(i), 0)
  return {
    reservations: total((i) => i.reservations),
    checkedIn: total((i) => i.checkedIn),
    waitlistEntries: total((i) => i.waitlistEntries),
    days: [...days].sort().map(([day, reservations]) => ({ day, reservations })),
    first: impacts.flatMap((i) => i.first).slice(0, 200),
  }
}
