import { useSignal } from '@preact/signals'
import type { JSX } from 'preact'
import { t } from '../../i18n/text.ts'
import { clock, countdown } from '../../i18n/time.ts'
import { Link } from '../../router.tsx'
import { branchOf, zoneOf } from '../../state/branches.ts'
import { now } from '../../state/clock.ts'
import type { Reservation } from '../../state/mine.ts'
import { account } from '../../state/session.ts'
import { Button, useAction } from '../../ui/action.tsx'
import { Field } from '../../ui/field.tsx'
import { notify } from '../../ui/notice.tsx'
import { Fault } from '../../ui/problem.tsx'
import { checkIn } from './actions.ts'
import { ms } from './times.ts'

/** CheckIn shows how and until when the user checks in to a reservation. The rule of the library decides how. */
export function CheckIn({ reservation: r }: { reservation: Reservation }): JSX.Element {
  const zone = zoneOf(r.seat?.branch)
  const m = t().me
  const opens = ms(r.checkInOpensAt)
  const closes = ms(r.checkInDeadline)
  if (now.value < opens) {
    return (
      <p>
        {m.checkInOpens(clock(opens, zone))}{' '}
        <span role="timer" class="timer">
          ({countdown(opens - now.value)})
        </span>
      </p>
    )
  }
  if (now.value >= closes) return <p>{m.checkInClosed(clock(closes, zone))}</p>
  return (
    <div class="stack">
      <p class="deadline">
        {m.checkInCloses(clock(closes, zone))}{' '}
        <span role="timer" class="timer">
          {countdown(closes - now.value)}
        </span>
      </p>
      {account.value && <How reservation={r} />}
    </div>
  )
}

function How({ reservation: r }: { reservation: Reservation }): JSX.Element {
  const m = t().me
  const scan = `/scan?r=${r.id}`
  switch (r.checkIn) {
    case 'CHECK_IN_RULE_DESK':
      return <p>{m.checkInAtDesk(branchOf(r.seat?.branch)?.name ?? '')}</p>
    case 'CHECK_IN_RULE_SEAT':
      return (
        <>
          <p>{m.needsLabel}</p>
          <Link href={scan} class="button main">
            {m.scanLabel}
          </Link>
        </>
      )
    case 'CHECK_IN_RULE_SEAT_AND_SCREEN':
      return (
        <>
          <p>{m.needsBoth}</p>
          <Link href={scan} class="button main">
            {m.scanBoth}
          </Link>
        </>
      )
    case 'CHECK_IN_RULE_SCREEN':
      return (
        <>
          <p>{m.needsScreen}</p>
          <Link href={scan} class="button main">
            {m.scanScreen}
          </Link>
          <Digits reservation={r} />
        </>
      )
    default:
      return <CheckInButton reservation={r} />
  }
}

function CheckInButton({ reservation: r }: { reservation: Reservation }): JSX.Element {
  const { busy, problem, run } = useAction()
  return (
    <>
      <div class="row">
        <Button
          kind="main"
          busy={busy.value}
          onClick={() =>
            void run(async () => {
              await checkIn(r.id)
              notify(t().me.checkedIn(r.seat?.label ?? ''))
            })
          }
        >
          {t().me.checkIn}
        </Button>
      </div>
      <Fault problem={problem.value} zone={zoneOf(r.seat?.branch)} />
    </>
  )
}

/** Digits is the form for the eight digits of a screen. */
function Digits({ reservation: r }: { reservation: Reservation }): JSX.Element {
  const digits = useSignal('')
  const { busy, problem, run } = useAction()
  return (
    <form
      onSubmit={(e) => {
        e.preventDefault()
        void run(async () => {
          await checkIn(r.id, { presenceCode: digits.value, labelCode: '' })
          notify(t().me.checkedIn(r.seat?.label ?? ''))
        })
      }}
    >
      <DigitsField
        value={digits.value}
        onInput={(v) => {
          digits.value = v
        }}
        busy={busy.value}
      />
      <Fault problem={problem.value} zone={zoneOf(r.seat?.branch)} />
    </form>
  )
}

interface DigitsProps {
  value: string
  onInput: (value: string) => void
  busy: boolean
}

/** DigitsField is the field for the digits of a screen, with its button. */
export function DigitsField({ value, onInput, busy }: DigitsProps): JSX.Element {
  const m = t().me
  return (
    <Field label={m.digits} hint={m.digitsHint}>
      {(attributes) => (
        <div class="with-button">
          <input
            {...attributes}
            class="digits"
            name="digits"
            type="text"
            inputMode="numeric"
            autocomplete="one-time-code"
            pattern="[0-9][0-9 \-]{6,}[0-9]"
            placeholder="1234 5678"
            maxLength={12}
            required
            value={value}
            onInput={(e) => onInput(e.currentTarget.value)}
          />
          <Button type="submit" busy={busy}>
            {m.checkIn}
          </Button>
        </div>
      )}
    </Field>
  )
}
