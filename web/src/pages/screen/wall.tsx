import { useComputed, useSignal } from '@preact/signals'
import { useEffect, useMemo, useRef } from 'preact/hooks'
import type { JSX } from 'preact'
import type { Problem } from '../../api/problem.ts'
import { t, ts } from '../../i18n/text.ts'
import { clock, longDay, number } from '../../i18n/time.ts'
import { endDisplay } from '../../state/display.ts'
import { Button, useAction } from '../../ui/action.tsx'
import { Fault, problemText } from '../../ui/problem.tsx'
import { openFeed, type Feed } from './feed.ts'
import { FindSeat } from './find.tsx'
import { News, opening } from './news.tsx'

type ViewName = 'code' | 'find' | 'help'

const idle = 60_000 // milliseconds without a touch after which the code is shown again
const lostAfter = 5000 // milliseconds without a connection before the screen says so

/** Wall is the display: the code on one side, the state of the branch on the other. */
export function Wall({ screen, kept }: { screen: string; kept: boolean }): JSX.Element {
  const feed = useMemo(() => openFeed(screen), [])
  const view = useSignal<ViewName>('code')
  useEffect(() => () => feed.close(), [feed])
  useWakeLock()
  useIdle(() => {
    view.value = 'code'
  })
  const heading = useRef<HTMLHeadingElement>(null)
  const before = useRef<ViewName>('code')
  useEffect(() => {
    if (before.current !== 'code' && view.value === 'code') heading.current?.focus({ preventScroll: true })
    before.current = view.value
  }, [view.value])
  // Moves the picture by some pixels each minute, so that it does not burn in.
  const shift = useComputed(() => Math.floor(feed.time.value / 60_000) % 8)
  const text = ts().screen
  const state = feed.state.value
  const branch = state?.branch
  if (feed.refused.value !== undefined) return <Refused problem={feed.refused.value} screen={screen} />
  if (state === undefined || branch === undefined) {
    return (
      <main class="wall-message">
        <h1>{text.title}</h1>
        <p role="status">{text.starting}</p>
      </main>
    )
  }
  if (view.value === 'find') {
    return (
      <FindSeat
        branch={branch}
        onBack={() => {
          view.value = 'code'
        }}
      />
    )
  }
  return (
    <main class={`wall shift-${shift.value}`}>
      <header class="wall-top">
        <h1 ref={heading} tabIndex={-1}>
          {branch.name}
        </h1>
        <Clock feed={feed} zone={branch.timezone} />
      </header>
      <CodePart feed={feed} off={state.codes.length === 0} />
      <div class="wall-side">
        {view.value === 'help' ? (
          <Help
            onFind={() => {
              view.value = 'find'
            }}
            onBack={() => {
              view.value = 'code'
            }}
          />
        ) : (
          <>
            <p class="wall-free">
              <b>{number(branch.availableCount)}</b>{' '}
              {text.free(branch.availableCount, number(branch.seatCount))}
            </p>
            <p class="wall-opening">{opening(branch, feed.time.value)}</p>
            <News branch={branch} time={feed.time} />
            <div class="wall-buttons">
              <Button
                kind="main"
                onClick={() => {
                  view.value = 'find'
                }}
              >
                {text.findSeat}
              </Button>
              <Button
                onClick={() => {
                  view.value = 'help'
                }}
              >
                {text.checkIn}
              </Button>
            </div>
          </>
        )}
        {!kept && <p class="wall-small">{text.notKept}</p>}
      </div>
    </main>
  )
}

function Clock({ feed, zone }: { feed: Feed; zone: string }): JSX.Element {
  const minute = useComputed(() => Math.floor(feed.time.value / 60_000) * 60_000)
  return (
    <p class="wall-clock">
      <time dateTime={new Date(minute.value).toISOString()}>
        <span class="wall-date">{longDay(minute.value, zone)}</span> <b>{clock(minute.value, zone)}</b>
      </time>
    </p>
  )
}

function CodePart({ feed, off }: { feed: Feed; off: boolean }): JSX.Element {
  const text = ts().screen
  const code = feed.code.value
  const lost = useComputed(() => feed.silent.value > lostAfter)
  if (code === undefined) {
    return (
      <section class="wall-code none" aria-label={text.scan}>
        <h2>{text.askAtDesk}</h2>
        <p role="status">{off ? text.off : lost.value ? text.lostNoCode : ''}</p>
      </section>
    )
  }
  const side = code.qrSize + 8 // a quiet zone of four modules on each side
  return (
    <section class="wall-code" aria-label={text.scan}>
      <h2>{text.scan}</h2>
      <div class="wall-qr">
        <svg viewBox={`-4 -4 ${side} ${side}`} role="img" aria-label={text.qr} shape-rendering="crispEdges">
          <rect x="-4" y="-4" width={side} height={side} fill="#fff" />
          <path d={code.qrPath} fill="#000" />
        </svg>
        <Progress feed={feed} />
      </div>
      <p class="wall-digits">
        <span>{text.orDigits}</span>{' '}
        <b>
          {code.digits.slice(0, 4)} {code.digits.slice(4)}
        </b>
      </p>
      <p class="wall-lost" role="status">
        {lost.value ? text.lost : ''}
      </p>
    </section>
  )
}

/** Progress is a line that gets shorter until the next code. */
function Progress({ feed }: { feed: Feed }): JSX.Element {
  const rest = useComputed(() => {
    const shown = feed.code.value
    if (shown === undefined) return 0
    const next = feed.state.value?.codes.find((c) => (c.validFrom ?? '') > (shown.validFrom ?? ''))
    const from = Date.parse(shown.validFrom ?? '')
    const until = Date.parse(next?.validFrom ?? shown.validUntil ?? '')
    return Math.max(0, Math.min(1, (until - feed.time.value) / (until - from)))
  })
  return (
    <svg class="wall-progress" viewBox="0 0 100 1" preserveAspectRatio="none" aria-hidden="true">
      <rect class="track" width="100" height="1" />
      <rect width={(rest.value * 100).toFixed(1)} height="1" />
    </svg>
  )
}

function Help({ onFind, onBack }: { onFind: () => void; onBack: () => void }): JSX.Element {
  const text = ts().screen
  const heading = useFocus()
  return (
    <section class="wall-help">
      <h2 ref={heading} tabIndex={-1}>
        {text.checkIn}
      </h2>
      <ol>
        <li>{text.steps.camera}</li>
        <li>{text.steps.confirm}</li>
      </ol>
      <p>{text.steps.digits(location.host)}</p>
      <p>{text.steps.desk}</p>
      <p>{text.steps.noReservation}</p>
      <div class="wall-buttons">
        <Button kind="main" onClick={onBack}>
          {t().common.back}
        </Button>
        <Button onClick={onFind}>{text.findSeat}</Button>
      </div>
      <p class="wall-small">{text.returns}</p>
    </section>
  )
}

/** Refused tells staff why the server does not accept the screen, and students where to check in. */
function Refused({ problem, screen }: { problem: Problem; screen: string }): JSX.Element {
  const text = ts().screen
  const action = useAction()
  return (
    <main class="wall-message">
      <h1>{text.askAtDesk}</h1>
      <p role="alert">{refusal(problem, screen)}</p>
      <Fault problem={action.problem.value} />
      <Button busy={action.busy.value} onClick={() => void action.run(endDisplay)}>
        {text.again}
      </Button>
    </main>
  )
}

function refusal(problem: Problem, screen: string): string {
  const text = ts().screen
  if (problem.status === 401) return text.badKey
  switch (problem.reason) {
    case 'ROLE_REQUIRED':
      return text.scopeMissing
    case 'SCREEN_NOT_FOUND':
      return text.notFound(screen)
    case 'INVALID_FIELDS':
      return screen === '' ? text.several : problemText(problem)
    case 'PRESENCE_OFF':
      return text.presenceOff
  }
  return problemText(problem)
}

/** useFocus moves the focus to a heading when it appears. */
export function useFocus(): { current: HTMLHeadingElement | null } {
  const ref = useRef<HTMLHeadingElement>(null)
  useEffect(() => ref.current?.focus({ preventScroll: true }), [])
  return ref
}

/** useIdle calls f after a minute without a touch or a key. */
function useIdle(f: () => void): void {
  useEffect(() => {
    let timer: ReturnType<typeof setTimeout>
    const touched = (): void => {
      clearTimeout(timer)
      timer = setTimeout(f, idle)
    }
    const events = ['pointerdown', 'pointermove', 'keydown', 'wheel', 'scroll'] as const
    for (const name of events) addEventListener(name, touched, { passive: true, capture: true })
    touched()
    return () => {
      clearTimeout(timer)
      for (const name of events) removeEventListener(name, touched, { capture: true })
    }
  }, [])
}

/** useWakeLock keeps the screen awake while the page is visible, where the browser can do it. */
function useWakeLock(): void {
  useEffect(() => {
    let lock: WakeLockSentinel | undefined
    let ended = false
    const request = async (): Promise<void> => {
      if (document.visibilityState !== 'visible' || !('wakeLock' in navigator)) return
      try {
        lock = await navigator.wakeLock.request('screen')
        if (ended) await lock.release()
      } catch {
        // The browser refuses, for example because the battery is low.
      }
    }
    const shown = (): void => void request()
    void request()
    document.addEventListener('visibilitychange', shown)
    return () => {
      ended = true
      document.removeEventListener('visibilitychange', shown)
      void lock?.release()
    }
  }, [])
}
