import { useSignal } from '@preact/signals'
import { useEffect, useRef } from 'preact/hooks'
import type { JSX } from 'preact'
import { asProblem, type Problem } from '../../api/problem.ts'
import { t } from '../../i18n/text.ts'
import { clock } from '../../i18n/time.ts'
import { Link } from '../../router.tsx'
import { branchOf, zoneOf } from '../../state/branches.ts'
import type { Reservation } from '../../state/mine.ts'
import { Button, useAction } from '../../ui/action.tsx'
import { notify } from '../../ui/notice.tsx'
import { Fault } from '../../ui/problem.tsx'
import { checkExtension, extend } from './actions.ts'
import { ms, shortLength } from './times.ts'

const steps = [15, 30, 60, 90, 120] // minutes

/** Extend lets the user choose a later end, among those that the library allows now. */
export function Extend({
  reservation: r,
  onDone,
}: {
  reservation: Reservation
  onDone: () => void
}): JSX.Element {
  const possible = useSignal<readonly number[] | undefined>(undefined)
  const refused = useSignal<Problem | undefined>(undefined)
  const { busy, problem, run } = useAction()
  const ref = useRef<HTMLDivElement>(null)
  const end = ms(r.endTime)
  const zone = zoneOf(r.seat?.branch)
  const m = t().me

  useEffect(() => {
    let current = true
    possible.value = refused.value = undefined
    void choices(r).then((found) => {
      if (!current) return
      possible.value = found.ends
      refused.value = found.refused
    })
    return () => {
      current = false
    }
  }, [r.id, r.endTime])

  // The button that has opened this is not there any more: the focus follows.
  const known = possible.value !== undefined
  useEffect(() => ref.current?.focus({ preventScroll: true }), [known])

  if (possible.value === undefined) {
    return (
      <div ref={ref} tabIndex={-1} class="loading" role="status">
        {m.extendLooking}
      </div>
    )
  }
  if (possible.value.length === 0) {
    const reason = refused.value?.reason
    return (
      <div ref={ref} tabIndex={-1} role="status">
        {reason === 'SEAT_TAKEN' ? (
          <p>{m.extendTaken(clock(end, zone))}</p>
        ) : (
          <Fault problem={refused.value} zone={zone} />
        )}
        <div class="row">
          <Link href={`/?branch=${encodeURIComponent(r.seat?.branch ?? '')}`} class="button">
            {m.otherSeat}
          </Link>
          <Button onClick={onDone}>{t().common.back}</Button>
        </div>
      </div>
    )
  }
  return (
    <div ref={ref} tabIndex={-1} role="group" aria-label={m.extendTo}>
      <p>{m.extendTo}</p>
      <div class="chips ends">
        {possible.value.map((to) => (
          <button
            key={to}
            class="chip"
            type="button"
            disabled={busy.value}
            onClick={() =>
              void run(async () => {
                await extend(r.id, new Date(to).toISOString())
                notify(t().me.extended(clock(to, zone)))
                onDone()
              })
            }
          >
            {t().common.until(clock(to, zone))} <small>+{shortLength(to - end)}</small>
          </button>
        ))}
        <Button onClick={onDone}>{t().common.cancel}</Button>
      </div>
      <Fault problem={problem.value} zone={zone} />
    </div>
  )
}

/** choices asks the server which later ends are possible, and why the nearest one is not if none is. */
async function choices(r: Reservation): Promise<{ ends: number[]; refused: Problem | undefined }> {
  const end = ms(r.endTime)
  const candidates = steps.map((minutes) => end + minutes * 60_000)
  const closing = ms(branchOf(r.seat?.branch)?.closesAt)
  if (closing > end && closing < end + 4 * 3_600_000 && !candidates.includes(closing))
    candidates.push(closing)
  candidates.sort((a, b) => a - b)
  const answers = await Promise.all(
    candidates.map((to) => checkExtension(r.id, new Date(to).toISOString()).then(() => undefined, asProblem)),
  )
  return {
    ends: candidates.filter((_, i) => answers[i] === undefined),
    refused: answers.find((a) => a !== undefined),
  }
}
