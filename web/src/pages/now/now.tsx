import { computed, effect, signal, untracked } from '@preact/signals'
import { useEffect } from 'preact/hooks'
import type { JSX } from 'preact'
import { t } from '../../i18n/text.ts'
import { dayAndClock } from '../../i18n/time.ts'
import { branches, branchesFresh, loadBranches } from '../../state/branches.ts'
import { lastChanges, plan, pulse, ready, seatsAsOf, seatStream, watch } from '../../state/seats.ts'
import { Button, useAction } from '../../ui/action.tsx'
import { announce } from '../../ui/announce.tsx'
import { watchConnection } from '../../ui/connection.tsx'
import { notify } from '../../ui/notice.tsx'
import { Link } from '../../router.tsx'
import { Fault } from '../../ui/problem.tsx'
import { booking, settle } from './booking.ts'
import { branch, choice, chosen, closeSeat, openSeat, passed, zone } from './choice.ts'
import { BranchChoice, Filters, Summary, TimeChoice, ViewChoice } from './head.tsx'
import { counts, SeatList } from './list.tsx'
import { Sending } from './sending.tsx'

/** The seats that the store has to show, as text, so that the stream is opened again only if it changes. */
const watched = computed(() => {
  const code = branch.value?.code
  if (code === undefined || passed.value) return ''
  const window = chosen.value
  if (window === undefined) return JSON.stringify({ branch: code })
  const iso = (at: number): string => new Date(at).toISOString()
  return JSON.stringify({ branch: code, window: { startTime: iso(window.from), endTime: iso(window.to) } })
})

function close(): void {
  settle()
  closeSeat()
}

/** On a wide screen, list and map stand side by side. A map that is not shown is not loaded and not drawn. */
const wideScreen = matchMedia('(min-width: 60.01rem)')
const wide = signal(wideScreen.matches)
wideScreen.addEventListener('change', () => (wide.value = wideScreen.matches))
const mapShown = computed(() => wide.value || choice.value.view === 'map')

const map = signal<typeof import('../../map/map.tsx') | undefined>(undefined)
const sheet = signal<typeof import('./sheet.tsx') | undefined>(undefined)

async function loadMap(): Promise<void> {
  map.value ??= await import('../../map/map.tsx')
}

async function loadSheet(): Promise<void> {
  sheet.value ??= await import('./sheet.tsx')
}

/** Whether the map or the sheet did not load: there is no network, or a new release has replaced their files. */
const unloaded = signal(false)

/** needMore loads the map if it is shown, and the sheet when the seats are there or the address has one. */
function needMore(): void {
  // Without a network, the next choice tries again.
  const wanted: Promise<void>[] = []
  if (mapShown.value) wanted.push(loadMap())
  if (ready.value || choice.value.seat !== '') wanted.push(loadSheet())
  Promise.all(wanted).then(
    () => (unloaded.value = false),
    () => (unloaded.value = true),
  )
}

/** View is the page Now: the seats of a branch, now or at a time, as a list and as a map. */
export function View(): JSX.Element {
  const n = t().now
  const b = branch.value
  const { view, seat } = choice.value
  const loading = useAction()

  // Free seats of the other branches: read when the page is shown, not polled.
  useEffect(() => {
    const load = (): void => void loading.run(loadBranches)
    const shown = (): void => {
      if (document.visibilityState === 'visible') load()
    }
    load()
    document.addEventListener('visibilitychange', shown)
    addEventListener('online', load)
    return () => {
      document.removeEventListener('visibilitychange', shown)
      removeEventListener('online', load)
    }
  }, [])

  useEffect(() => {
    let end = (): void => {}
    const stop = effect(() => {
      const wanted = watched.value
      untracked(() => {
        end()
        end = (): void => {}
        if (wanted === '') return
        const close = watch(JSON.parse(wanted) as Parameters<typeof watch>[0])
        const stream = seatStream.peek()
        const forget = stream === undefined ? undefined : watchConnection(stream)
        end = () => {
          close()
          forget?.()
        }
      })
    })
    return () => {
      stop()
      end()
    }
  }, [])

  useEffect(() => effect(tellChanges), [])
  useEffect(() => effect(tellBooking), [])

  useEffect(() => effect(needMore), [])

  const stream = seatStream.value?.state.value
  const late = stream?.kind === 'opening' && ready.value && seatsAsOf.value > 0
  return (
    <>
      <h1>{n.title}</h1>
      <div class="choices">
        <BranchChoice />
        <TimeChoice />
        <ViewChoice />
        <Filters />
      </div>
      {b === undefined && branchesFresh.value && (
        <p class="card">{branches.value.length === 0 ? n.noBranches : t().errors.BRANCH_NOT_FOUND}</p>
      )}
      {b === undefined && !branchesFresh.value && loading.problem.value !== undefined && (
        <>
          <Fault problem={loading.problem.value} />
          <p>
            <Button busy={loading.busy.value} onClick={() => void loading.run(loadBranches)}>
              {t().common.retry}
            </Button>
          </p>
        </>
      )}
      {stream?.kind === 'refused' && <Fault problem={stream.problem} zone={zone.value} />}
      <Summary />
      {late && (
        <p class="as-of">
          <small>{n.asOf(dayAndClock(seatsAsOf.value, zone.value))}</small>
        </p>
      )}
      <Pending />
      {unloaded.value &&
        ((mapShown.value && map.value === undefined) || (seat !== '' && sheet.value === undefined)) && (
          <div class="fault" role="alert">
            <p>{t().common.failedText}</p>
            <Button onClick={() => location.reload()}>{t().common.reload}</Button>
          </div>
        )}
      {b !== undefined && !passed.value && (
        <div class={`both show-${view}`}>
          {ready.value ? (
            <SeatList onOpen={openSeat} />
          ) : loading.problem.value === undefined ? (
            <p class="loading" role="status">
              {t().common.loading}
            </p>
          ) : (
            <div>
              <Fault problem={loading.problem.value} />
              <p>
                <Link href="/me">{t().common.nav.me}</Link>
              </p>
            </div>
          )}
          {mapShown.value && map.value !== undefined && ready.value && plan.value.order.length > 0 && (
            <map.value.SeatMap key={b.code} branch={b.name} onOpen={openSeat} />
          )}
        </div>
      )}
      {seat !== '' && sheet.value !== undefined && <sheet.value.SeatSheet id={seat} onClose={close} />}
    </>
  )
}

/** Pending is a reservation that is under way while its sheet is closed. */
function Pending(): JSX.Element | null {
  const b = booking.value
  if (b.state !== 'sending' || choice.value.seat === b.request.seat) return null
  return (
    <div class="card">
      <Sending booking={b} />
    </div>
  )
}

let told: unknown

/** tellBooking tells how a reservation ended whose sheet is not open. */
function tellBooking(): void {
  const b = booking.value
  if (b === told || b.state === 'none' || b.state === 'sending') return
  told = b
  if (choice.peek().seat === b.request.seat) return
  if (b.state === 'booked') notify(t().now.booked(b.request.label, dayAndClock(b.request.to, zone.peek())))
  else if (b.state === 'failed') openSeat(b.request.seat)
}

let wasFree: boolean | undefined

/** tellChanges announces what matters to the user: whether any seat is free, and a large change. */
function tellChanges(): void {
  void pulse.value
  untracked(() => {
    if (!ready.value) {
      wasFree = undefined
      return
    }
    const free = counts.value.free > 0
    if (wasFree !== undefined && free !== wasFree) announce(free ? t().now.someFree : t().now.noneFree)
    wasFree = free
    // Many seats at once: the library has closed or opened something. The reason is in the branch.
    const many = lastChanges.filter(
      (c) => c.before !== undefined && c.before.available !== c.after?.available,
    ).length
    if (many >= 10) void loadBranches().catch(() => {})
  })
}
