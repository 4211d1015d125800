import { computed, effect, signal } from '@preact/signals'
import { api, call, type Schema } from '../../api/client.ts'
import { asProblem, Problem } from '../../api/problem.ts'
import { zoneOf } from '../../state/branches.ts'
import { now, serverNow } from '../../state/clock.ts'
import { loadMine, mineProblem, reservations, type Reservation } from '../../state/mine.ts'
import { account } from '../../state/session.ts'
import { checkIn } from '../me/actions.ts'
import { ms } from '../me/times.ts'
import { readCode, type ScannedCode } from './code.ts'

export type SeatAnswer = Schema<'GetSeatByLabelResponse'>

/** Step is what the page shows. */
export type Step =
  | { kind: 'look' }
  | { kind: 'working' }
  /** The user has to sign in to go on. `after` goes on. */
  | { kind: 'sign-in'; screen: string; seat: SeatAnswer | undefined; after: () => Promise<void> }
  /** Several reservations can be checked in. */
  | { kind: 'choose'; among: readonly Reservation[] }
  /** The library requires another code. */
  | { kind: 'more'; reservation: Reservation; need: 'seat' | 'screen' }
  | { kind: 'desk'; reservation: Reservation }
  | { kind: 'done'; reservation: Reservation; before: boolean }
  /** No reservation can be checked in here now. */
  | { kind: 'none'; branch: string; next: Reservation | undefined }
  /** A seat by its label. */
  | { kind: 'seat'; answer: SeatAnswer }

interface ScreenProof {
  /** The code, the digits, or the code of a recorded scan. */
  code: string
  /** Code of the branch of the screen; empty: not known. */
  branch: string
  /** The screen's name; empty: not known. */
  screen: string
  /** recorded: it is the code of a scan, which is valid for three minutes. digits: the code cannot be recorded. */
  kind: 'code' | 'recorded' | 'digits'
}

/**
 * Flow leads from a scanned code to a check-in. It collects the codes that the library requires, in any
 * order. The codes are kept in memory only.
 */
export class Flow {
  readonly step = signal<Step>({ kind: 'look' })
  readonly problem = signal<Problem | undefined>(undefined)
  /** Whether the last code was none of the library. */
  readonly foreign = signal(false)
  /** Whether the last label was that of another seat than the reserved one. */
  readonly wrongSeat = signal('')
  readonly screen = signal<ScreenProof | undefined>(undefined)
  readonly label = signal('')

  /** zone is the time zone of the texts: that of the reservation in question. */
  readonly zone = computed(() => {
    const wanted = reservations.value.find((r) => r.id === this.wanted) ?? reservations.value[0]
    return zoneOf(wanted?.seat?.branch)
  })

  /** wanted is the reservation that the user wants to check in; empty: the one that is open for it. */
  constructor(private wanted: string) {}

  /** take goes on with a code, and reports whether it is one of a library. */
  take(text: string): boolean {
    const code = readCode(text)
    this.foreign.value = code === undefined
    this.wrongSeat.value = ''
    if (code === undefined) return false
    void this.attempt(() => this.use(code))
    return true
  }

  /** again looks for another code. The codes so far are kept. */
  again(): void {
    this.problem.value = undefined
    this.step.value = { kind: 'look' }
  }

  /** choose checks in one of several reservations. */
  choose(r: Reservation): void {
    this.wanted = r.id
    void this.attempt(() => this.finish(r))
  }

  /** resume goes on after the sign-in. */
  resume(after: () => Promise<void>): void {
    void this.attempt(after)
  }

  /** booked goes on after the seat of the label was reserved. */
  booked(r: Reservation): Promise<void> {
    this.wanted = r.id
    return this.attempt(() => this.finish(r))
  }

  /** reload asks again what the user can do at the seat of the label. */
  reload(): void {
    void this.attempt(() => this.bySeat(this.label.value))
  }

  private async attempt(f: () => Promise<void>): Promise<void> {
    const before = this.step.value
    this.step.value = { kind: 'working' }
    this.problem.value = undefined
    try {
      await f()
    } catch (e) {
      const problem = asProblem(e)
      this.problem.value = problem
      // The instruction of the step before is still right, except after a choice or a sign-in.
      this.step.value = before.kind === 'more' ? before : { kind: 'look' }
    }
  }

  private async use({ kind, code }: ScannedCode): Promise<void> {
    switch (kind) {
      case 'digits':
        this.screen.value = { code, branch: '', screen: '', kind: 'digits' }
        if (await signedIn()) return this.byScreen()
        // The digits are too old after the sign-in, so they are asked for again.
        this.screen.value = undefined
        this.step.value = { kind: 'sign-in', screen: '', seat: undefined, after: async () => this.again() }
        return
      case 'screen':
        return this.useScreen(code)
      case 'label':
        return this.bySeat(code)
      case 'bare':
        try {
          await this.bySeat(code)
        } catch (e) {
          const problem = asProblem(e)
          if (problem.reason !== 'PRESENCE_INVALID') throw problem
          await this.useScreen(code)
        }
    }
  }

  private async useScreen(code: string): Promise<void> {
    this.screen.value = { code, branch: '', screen: '', kind: 'code' }
    // The code is valid for 30 seconds, and a sign-in takes longer. So the scan is recorded first.
    if (!account.value) await this.record()
    if (await signedIn()) return this.byScreen()
    const { screen } = this.screen.value
    this.step.value = { kind: 'sign-in', screen, seat: undefined, after: () => this.byScreen() }
  }

  /** record makes the code of the screen last for three minutes, and learns where the screen is. */
  private async record(): Promise<void> {
    const proof = this.screen.value
    if (proof?.kind !== 'code') return
    try {
      const scan = await call(api.POST('/v1/scans', { body: { code: proof.code } }))
      this.screen.value = { code: scan.scanCode, branch: scan.branch, screen: scan.screen, kind: 'recorded' }
    } catch (e) {
      this.screen.value = undefined
      throw e
    }
  }

  /** byScreen finds the reservation that the code of a screen checks in. */
  private async byScreen(): Promise<void> {
    await fresh()
    const all = reservations.value
    const named = all.find((r) => r.id === this.wanted)
    if (named !== undefined) return this.finish(named)
    let open = all.filter(canCheckIn)
    if (open.length !== 1) {
      await this.record()
      const branch = this.screen.value?.branch ?? ''
      if (branch !== '') open = open.filter((r) => r.seat?.branch === branch)
    }
    const [only] = open
    if (only !== undefined && open.length === 1) return this.finish(only)
    if (open.length > 1) {
      this.step.value = { kind: 'choose', among: open }
      return
    }
    const branch = this.screen.value?.branch ?? ''
    const there = all.filter((r) => branch === '' || r.seat?.branch === branch)
    const here = there.find((r) => r.status === 'RESERVATION_STATUS_CHECKED_IN')
    const next = there.find((r) => r.status === 'RESERVATION_STATUS_CONFIRMED')
    if (here !== undefined) this.step.value = { kind: 'done', reservation: here, before: true }
    else this.step.value = { kind: 'none', branch, next }
  }

  /** bySeat finds out what the user can do at the seat of a label. */
  private async bySeat(code: string): Promise<void> {
    await signedIn()
    const answer = await call(api.GET('/v1/labels/{code}', { params: { path: { code } } }))
    const seat = answer.seat?.id
    const wanted = reservations.value.find((r) => r.id === this.wanted)
    if (wanted !== undefined && wanted.seat?.id !== seat && canCheckIn(wanted)) {
      this.wrongSeat.value = answer.seat?.label ?? ''
      this.step.value = { kind: 'more', reservation: wanted, need: 'seat' }
      return
    }
    this.label.value = code
    if (!account.value) {
      this.step.value = { kind: 'sign-in', screen: '', seat: answer, after: () => this.bySeat(code) }
      return
    }
    if (answer.action === 'SEAT_ACTION_CHECK_IN') return this.finish(await reservation(answer.reservationId))
    if (answer.action === 'SEAT_ACTION_STAY') {
      void loadMine()
      this.step.value = { kind: 'done', reservation: await reservation(answer.reservationId), before: true }
      return
    }
    this.step.value = { kind: 'seat', answer }
  }

  /** finish checks a reservation in, or asks for the code that is still missing. */
  private async finish(r: Reservation): Promise<void> {
    if (r.status === 'RESERVATION_STATUS_CHECKED_IN') {
      this.step.value = { kind: 'done', reservation: r, before: true }
      return
    }
    this.wanted = r.id
    if (r.checkIn === 'CHECK_IN_RULE_DESK') {
      this.step.value = { kind: 'desk', reservation: r }
      return
    }
    const both = r.checkIn === 'CHECK_IN_RULE_SEAT_AND_SCREEN'
    if (this.label.value === '' && (both || r.checkIn === 'CHECK_IN_RULE_SEAT')) {
      // The way to the seat takes longer than the 30 seconds of a code.
      if (canCheckIn(r)) await this.record()
      this.step.value = { kind: 'more', reservation: r, need: 'seat' }
      return
    }
    if (this.screen.value === undefined && (both || r.checkIn === 'CHECK_IN_RULE_SCREEN')) {
      this.step.value = { kind: 'more', reservation: r, need: 'screen' }
      return
    }
    try {
      const done = await checkIn(r.id, {
        presenceCode: this.screen.value?.code ?? '',
        labelCode: this.label.value,
      })
      this.screen.value = undefined
      this.label.value = ''
      this.wanted = ''
      this.step.value = { kind: 'done', reservation: done, before: false }
    } catch (e) {
      const problem = asProblem(e)
      this.dropRefused(problem)
      if (problem.reason === 'PRESENCE_EXPIRED' || problem.reason === 'PRESENCE_INVALID') {
        const seat = both || r.checkIn === 'CHECK_IN_RULE_SEAT'
        const screen = both || r.checkIn === 'CHECK_IN_RULE_SCREEN'
        if (seat || screen) {
          this.problem.value = problem
          this.step.value = {
            kind: 'more',
            reservation: r,
            need: seat && this.label.value === '' ? 'seat' : 'screen',
          }
          return
        }
      }
      if (problem.reason === 'PRESENCE_REQUIRED') {
        // The rule has changed since the reservation was read.
        const rule = `CHECK_IN_RULE_${problem.metadata['check_in'] ?? ''}` as Reservation['checkIn']
        if (rule !== r.checkIn) return this.finish({ ...r, checkIn: rule })
      }
      throw problem
    }
  }

  /** dropRefused forgets the codes that the server did not accept. */
  private dropRefused(p: Problem): void {
    if (p.reason === 'PRESENCE_EXPIRED') this.screen.value = undefined
    if (p.reason === 'PRESENCE_INVALID' || p.reason === 'PRESENCE_ELSEWHERE') {
      if (this.screen.value !== undefined) this.screen.value = undefined
      else this.label.value = ''
    }
  }
}

function canCheckIn(r: Reservation): boolean {
  const time = Math.max(now.value, serverNow())
  return (
    r.status === 'RESERVATION_STATUS_CONFIRMED' &&
    ms(r.checkInOpensAt) <= time &&
    time < ms(r.checkInDeadline)
  )
}

/** signedIn waits until the page knows whether there is a session. */
function signedIn(): Promise<boolean> {
  return new Promise((known) => {
    let over = false
    const end = effect(() => {
      if (account.value === undefined || over) return
      over = true
      known(account.value !== null)
      queueMicrotask(() => end())
    })
  })
}

/** fresh reads the user's reservations. */
async function fresh(): Promise<void> {
  await loadMine()
  if (mineProblem.value !== undefined) throw mineProblem.value
}

async function reservation(id: string): Promise<Reservation> {
  const answer = await call(
    api.GET('/v1/reservations/{reservationId}', { params: { path: { reservationId: id } } }),
  )
  if (answer.reservation === undefined) throw Problem.offline()
  return answer.reservation
}
