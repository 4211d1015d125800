import { useComputed, useSignal } from '@preact/signals'
import { useEffect, useMemo, useRef } from 'preact/hooks'
import type { ComponentChildren, JSX } from 'preact'
import { t } from '../../i18n/text.ts'
import { clock, countdown, dayAndClock } from '../../i18n/time.ts'
import { go, here, Link } from '../../router.tsx'
import { branchOf, zoneOf } from '../../state/branches.ts'
import { now } from '../../state/clock.ts'
import { reservations, type Reservation } from '../../state/mine.ts'
import { account } from '../../state/session.ts'
import { announce } from '../../ui/announce.tsx'
import { Button } from '../../ui/action.tsx'
import { Field } from '../../ui/field.tsx'
import { Fault } from '../../ui/problem.tsx'
import { SignIn } from '../account/sign-in.tsx'
import { useBranches } from '../me/branches.ts'
import { DigitsField } from '../me/check-in.tsx'
import { Place, Present } from '../me/present.tsx'
import { ms, span } from '../me/times.ts'
import { Camera } from './camera.tsx'
import { Flow, type Step } from './flow.ts'
import { Free, SeatHead, SeatStep } from './seat.tsx'

/**
 * View is the page to check in with codes: of a screen (/c/CODE) or of the label of a seat (/s/CODE),
 * from the camera of the phone, the camera of this page, or typed.
 */
export function View({ path }: { path: string }): JSX.Element {
  const flow = useMemo(() => new Flow(here.value.query.get('r') ?? ''), [])
  const zonesKnown = useBranches()
  useEffect(() => {
    if (path.toLowerCase() === '/scan') return
    // Codes do not stay in the history: the page takes the code, and removes it from its address.
    go('/scan', true)
    flow.take(path)
  }, [path])
  const step: Step = zonesKnown || flow.step.value.kind === 'look' ? flow.step.value : { kind: 'working' }
  const result = useRef<HTMLDivElement>(null)
  useEffect(() => {
    if (step.kind === 'look' || step.kind === 'working') return
    const heading = result.current?.querySelector('h2')
    if (heading === null || heading === undefined) return
    heading.tabIndex = -1
    heading.focus({ preventScroll: true })
    announce(heading.textContent ?? '')
  }, [step.kind === 'working' ? 'working' : step])
  return (
    <div class="narrow">
      <h1>{t().scan.title}</h1>
      <Collected flow={flow} />
      {flow.foreign.value && (
        <p class="fault" role="alert">
          {t().scan.foreign}
        </p>
      )}
      {flow.wrongSeat.value !== '' && (
        <p class="fault" role="alert">
          {t().scan.wrongSeat(flow.wrongSeat.value)}
        </p>
      )}
      <Fault problem={flow.problem.value} zone={flow.zone.value} />
      <div ref={result}>
        <Shown flow={flow} step={step} />
      </div>
    </div>
  )
}

function Shown({ flow, step }: { flow: Flow; step: Step }): JSX.Element {
  switch (step.kind) {
    case 'working':
      return (
        <p class="loading" role="status">
          {t().common.working}
        </p>
      )
    case 'look':
      return (
        <Look flow={flow}>
          <p>{t().scan.intro}</p>
        </Look>
      )
    case 'sign-in':
      return <SignInStep flow={flow} step={step} />
    case 'choose':
      return <Choose flow={flow} among={step.among} />
    case 'more':
      return <More flow={flow} step={step} />
    case 'desk':
      return (
        <section class="card">
          <h2>{t().me.seat(step.reservation.seat?.label ?? '')}</h2>
          <p>{t().me.checkInAtDesk(branchOf(step.reservation.seat?.branch)?.name ?? '')}</p>
          <Link href="/me" class="button">
            {t().me.title}
          </Link>
        </section>
      )
    case 'done':
      return <Done reservation={step.reservation} before={step.before} />
    case 'none':
      return <None flow={flow} branch={step.branch} next={step.next} />
    case 'seat':
      return <SeatStep flow={flow} answer={step.answer} />
  }
}

/** Collected shows the codes that the page has already, while another one is missing. */
function Collected({ flow }: { flow: Flow }): JSX.Element | null {
  if (flow.step.value.kind !== 'more') return null
  const s = t().scan
  const have = [
    flow.label.value === '' ? '' : s.haveLabel,
    flow.screen.value === undefined ? '' : s.haveScreen,
  ]
  if (have.every((text) => text === '')) return null
  return (
    <ul class="plain-list collected">
      {have
        .filter((text) => text !== '')
        .map((text) => (
          <li key={text}>
            <span aria-hidden="true">✓</span> {text}
          </li>
        ))}
    </ul>
  )
}

interface LookProps {
  flow: Flow
  children: ComponentChildren
  /** The only code that is missing. */
  only?: 'seat' | 'screen'
}

/** Look is the camera and the fields for codes. */
function Look({ flow, children, only }: LookProps): JSX.Element {
  const digits = useSignal('')
  const code = useSignal('')
  const s = t().scan
  return (
    <section class="card">
      {children}
      <Camera onCode={(text) => flow.take(text)} />
      {only !== 'seat' && (
        <form
          onSubmit={(e) => {
            e.preventDefault()
            flow.take(digits.value)
          }}
        >
          {account.value === null ? (
            <p class="quiet">
              {s.digitsAfterSignIn}{' '}
              <Link href={`/login?next=${encodeURIComponent(address())}`}>{t().common.signIn}</Link>
            </p>
          ) : (
            <DigitsField
              value={digits.value}
              onInput={(v) => {
                digits.value = v
              }}
              busy={false}
            />
          )}
        </form>
      )}
      <details>
        <summary>{s.typeCode}</summary>
        <form
          onSubmit={(e) => {
            e.preventDefault()
            flow.take(code.value)
          }}
        >
          <Field label={s.code} hint={s.codeHint}>
            {(attributes) => (
              <div class="with-button">
                <input
                  {...attributes}
                  name="code"
                  autocomplete="off"
                  autocapitalize="characters"
                  spellcheck={false}
                  required
                  value={code.value}
                  onInput={(e) => {
                    code.value = e.currentTarget.value
                  }}
                />
                <Button type="submit">{s.use}</Button>
              </div>
            )}
          </Field>
        </form>
      </details>
    </section>
  )
}

/** address returns the address of this page. It has no code, since codes are removed from it. */
function address(): string {
  const query = here.value.query.toString()
  return '/scan' + (query === '' ? '' : `?${query}`)
}

function SignInStep({ flow, step }: { flow: Flow; step: Extract<Step, { kind: 'sign-in' }> }): JSX.Element {
  const s = t().scan
  const { seat } = step
  // Another tab may have signed in, too.
  const known = account.value !== null && account.value !== undefined
  useEffect(() => {
    if (known) flow.resume(step.after)
  }, [known])
  return (
    <section class="card">
      {seat !== undefined ? (
        <>
          <SeatHead answer={seat} />
          <p>
            {seat.action === 'SEAT_ACTION_SIT_DOWN' ? (
              <>
                <span class="tag free">{s.free}</span> {s.signInSitDown}
              </>
            ) : (
              <>
                <span class="tag taken">{s.taken}</span> {s.signInTaken}
              </>
            )}
          </p>
        </>
      ) : (
        <>
          <h2>{step.screen === '' ? s.signIn : s.signInScreen(step.screen)}</h2>
          <p>{step.screen === '' ? s.signInDigits : s.signInKept}</p>
        </>
      )}
      <SignIn />
      <p>
        {t().account.noAccount}{' '}
        <Link href={`/register?next=${encodeURIComponent(address())}`}>{t().common.register}</Link>
      </p>
      {seat?.action === 'SEAT_ACTION_CHOOSE_ANOTHER' && <Free branch={seat.seat?.branch} />}
    </section>
  )
}

function Choose({ flow, among }: { flow: Flow; among: readonly Reservation[] }): JSX.Element {
  return (
    <section class="card">
      <h2>{t().scan.choose}</h2>
      <ul class="plain-list">
        {among.map((r) => (
          <li key={r.id} class="seat-item">
            <div>
              <p>
                <strong>{t().me.seat(r.seat?.label ?? '')}</strong>
              </p>
              <p>{span(r.startTime, r.endTime, zoneOf(r.seat?.branch))}</p>
              <p>
                <small>
                  <Place seat={r.seat} />
                </small>
              </p>
            </div>
            <Button
              kind="main"
              label={`${t().me.checkIn}: ${r.seat?.label ?? ''}`}
              onClick={() => flow.choose(r)}
            >
              {t().me.checkIn}
            </Button>
          </li>
        ))}
      </ul>
    </section>
  )
}

function More({ flow, step }: { flow: Flow; step: Extract<Step, { kind: 'more' }> }): JSX.Element {
  const s = t().scan
  const label = step.reservation.seat?.label ?? ''
  const zone = zoneOf(step.reservation.seat?.branch)
  const closes = ms(step.reservation.checkInDeadline)
  return (
    <Look flow={flow} only={step.need}>
      <h2>{step.need === 'seat' ? s.nowLabel(label) : s.nowScreen(label)}</h2>
      <p>{step.need === 'seat' ? s.nowLabelText : s.nowScreenText}</p>
      {closes > now.value && (
        <p class="deadline">
          {t().me.checkInCloses(clock(closes, zone))}{' '}
          <span role="timer" class="timer">
            {countdown(closes - now.value)}
          </span>
        </p>
      )}
    </Look>
  )
}

/** Done shows the reservation after the check-in, as it changes. */
function Done({ reservation, before }: { reservation: Reservation; before: boolean }): JSX.Element {
  const current = useComputed(() => reservations.value.find((r) => r.id === reservation.id))
  // The list of the user's reservations may be a moment behind the answer.
  const listed = useRef(false)
  if (current.value !== undefined) listed.current = true
  const shown = current.value ?? (listed.current ? undefined : reservation)
  const s = t().scan
  return (
    <>
      {shown === undefined ? (
        <p role="status">{s.ended}</p>
      ) : (
        <>
          <h2 class="done">
            <span aria-hidden="true">✓</span> {before ? s.already : s.done}
          </h2>
          <Present reservation={shown} />
        </>
      )}
      <Link href="/me" class="button">
        {t().me.title}
      </Link>
    </>
  )
}

function None({
  flow,
  branch,
  next,
}: {
  flow: Flow
  branch: string
  next: Reservation | undefined
}): JSX.Element {
  const s = t().scan
  const opens = ms(next?.checkInOpensAt)
  const zone = zoneOf(next?.seat?.branch)
  const name = branchOf(branch)?.name ?? ''
  return (
    <section class="card">
      <h2>{next === undefined ? s.none(name) : s.early(next.seat?.label ?? '')}</h2>
      {next !== undefined && (
        <>
          <p>{span(next.startTime, next.endTime, zone)}</p>
          <p>
            {opens > now.value
              ? t().me.checkInOpens(dayAndClock(opens, zone))
              : t().me.checkInClosed(clock(ms(next.checkInDeadline), zone))}
          </p>
        </>
      )}
      <div class="row">
        {next === undefined && <Free branch={branch} main />}
        {next !== undefined && (
          <Link href="/me" class="button main">
            {t().me.title}
          </Link>
        )}
        <Button onClick={() => flow.again()}>{s.again}</Button>
      </div>
    </section>
  )
}
