import { computed, signal } from '@preact/signals'
import { layout, neighbour, type Direction, type FloorPlanInput, type Plan } from '../../../map/layout.ts'
import { ts } from '../../../i18n/text.ts'
import { number } from '../../../i18n/time.ts'
import { announce } from '../../../ui/announce.tsx'
import {
  columns,
  conflicts,
  importFile,
  loadSeats,
  seatFile,
  type Column,
  type SeatRow,
  type Seats,
} from '../seats/data.ts'
import {
  below,
  changed,
  changes,
  duplicate,
  History,
  inRows,
  isPlaced,
  matching,
  move,
  placed,
  type Drawing,
  type Placed,
} from './model.ts'

/** View is the part of the floor that is shown, in centimetres. */
export interface View {
  x: number
  y: number
  width: number
  height: number
}

const margin = 200 // centimetres around the seats

/** Editor is the state of the floor plan editor: the drawing, its history, and what is selected. */
export class Editor {
  readonly history: History
  readonly drawing = signal<Drawing>(new Map())
  /** read is the drawing as the server has it. */
  readonly read = signal<Drawing>(new Map())
  readonly selected = signal<ReadonlySet<string>>(new Set())
  /** active is the seat that the keyboard is at. */
  readonly active = signal('')
  readonly floor = signal('')
  readonly grid = signal(25)
  readonly view = signal<View>({ x: 0, y: 0, width: 1000, height: 700 })
  /** moving is how far the selected seats are dragged at this moment. */
  readonly moving = signal<{ dx: number; dy: number } | undefined>(undefined)
  /** ghosts are seats of the tray that are dragged over the plan. */
  readonly ghosts = signal<readonly Placed[]>([])
  /** conflict has the labels that another person has changed. */
  readonly conflict = signal<readonly string[]>([])
  readonly floors: readonly string[]
  readonly seatSize: number
  private readonly floorOf: ReadonlyMap<string, string>

  constructor(
    readonly branch: string,
    seats: Seats,
  ) {
    this.floorOf = seats.floors
    const all = new Map(seats.rows.map((r) => [r.label, r]))
    this.history = new History(all)
    this.drawing.value = this.read.value = all
    this.floors = [...new Set(seats.rows.map((r) => this.floorOf.get(r.area) ?? ''))]
    this.floor.value = this.floors[0] ?? ''
    this.seatSize = layout(seats.rows, floorPlan(seats.rows, seats.floors)).seatSize
    this.fit()
  }

  /** onFloor are the seats of the floor that is shown. */
  readonly onFloor = computed(() =>
    [...this.drawing.value.values()].filter((r) => (this.floorOf.get(r.area) ?? '') === this.floor.value),
  )
  readonly shown = computed(() => this.onFloor.value.filter(isPlaced))
  readonly tray = computed(() => this.onFloor.value.filter((r) => !isPlaced(r)))
  readonly changes = computed(() => changes(this.read.value, this.drawing.value))
  /** chosen are the selected seats that have a place, as they are while they are dragged. */
  readonly chosen = computed(() => {
    const rows = placed(this.drawing.value, this.selected.value)
    const by = this.moving.value
    return by === undefined ? rows : move(rows, by.dx, by.dy)
  })
  /** waiting are the selected seats of the tray. */
  readonly waiting = computed(() => this.tray.value.filter((r) => this.selected.value.has(r.label)))

  /** step makes a change that undo takes back, and lets a screen reader say its result. */
  step(rows: readonly SeatRow[], said?: string): void {
    if (rows.length === 0) return
    this.history.step(changed(this.drawing.value, rows))
    this.drawing.value = this.history.drawing
    announce(said ?? this.describe(rows))
  }

  /** describe tells where seats are. */
  describe(rows: readonly SeatRow[]): string {
    const text = ts().seats.plan
    const first = rows[0]
    if (first === undefined) return ''
    if (rows.length > 1) {
      const at = rows.filter(isPlaced)
      if (at.length === 0) return text.seats(rows.length)
      return text.groupAt(
        rows.length,
        metres(Math.min(...at.map((r) => r.x))),
        metres(Math.min(...at.map((r) => r.y))),
      )
    }
    return isPlaced(first)
      ? text.seatAt(first.label, metres(first.x), metres(first.y))
      : text.noPlace(first.label)
  }

  undo(): void {
    if (!this.history.canUndo) return
    this.history.undo()
    this.afterHistory(ts().seats.plan.undone)
  }

  redo(): void {
    if (!this.history.canRedo) return
    this.history.redo()
    this.afterHistory(ts().seats.plan.redone)
  }

  private afterHistory(said: string): void {
    this.drawing.value = this.history.drawing
    this.selected.value = new Set([...this.selected.value].filter((l) => this.drawing.value.has(l)))
    announce(`${said} ${this.describe(this.chosen.value)}`)
  }

  select(labels: Iterable<string>): void {
    this.selected.value = new Set(labels)
    const [first] = this.selected.value
    if (first !== undefined && !this.selected.value.has(this.active.value)) this.active.value = first
  }

  toggle(label: string): void {
    const next = new Set(this.selected.value)
    if (!next.delete(label)) next.add(label)
    this.selected.value = next
    this.active.value = label
  }

  /** find selects the seats that a text names, also on another floor, and reports how many. */
  find(text: string): number {
    const labels = matching(this.drawing.value, text)
    const first = labels[0]
    if (first === undefined) return 0
    const row = this.drawing.value.get(first)
    if (row !== undefined) this.showFloor(this.floorOf.get(row.area) ?? '')
    this.select(labels.filter((l) => this.onFloor.value.some((r) => r.label === l)))
    this.reveal(first)
    return this.selected.value.size
  }

  showFloor(floor: string): void {
    if (floor === this.floor.value) return
    this.floor.value = floor
    this.selected.value = new Set()
    this.active.value = ''
    this.fit()
  }

  /** go moves the keyboard to the next seat in a direction. */
  go(direction: Direction): void {
    const next =
      this.active.value === ''
        ? this.shown.value[0]?.label
        : neighbour(this.map.value, this.active.value, direction)
    if (next === undefined) return
    this.active.value = next
    this.reveal(next)
  }

  /** map is the plan of the floor as the arrow keys need it. */
  private readonly map = computed((): Plan => {
    const rows = this.shown.value.map((r) => ({ ...r, id: r.label }))
    const box = { left: 0, top: 0, right: 0, bottom: 0 }
    return {
      places: new Map(rows.map((r) => [r.label, { ...r, angle: 0, floor: '', known: true }])),
      order: rows.map((r) => r.label),
      areas: [],
      floors: [],
      desks: [],
      seatSize: 0,
      bounds: box,
    }
  })

  /** reveal moves the view so that a seat is in it. */
  reveal(label: string): void {
    const [seat] = placed(this.drawing.value, [label])
    const v = this.view.value
    if (seat === undefined) return
    const inside = (at: number, from: number, size: number): number =>
      at < from + this.seatSize
        ? at - size / 4
        : at > from + size - this.seatSize
          ? at - (size * 3) / 4
          : from
    this.view.value = { ...v, x: inside(seat.x, v.x, v.width), y: inside(seat.y, v.y, v.height) }
  }

  /** nudge moves the selected seats by some centimetres. A step back returns them, so they do not snap to the grid. */
  nudge(dx: number, dy: number): void {
    this.step(move(placed(this.drawing.value, this.selected.value), dx, dy))
    if (this.active.value !== '') this.reveal(this.active.value)
  }

  /** place puts seats of the tray on the plan. */
  place(rows: readonly SeatRow[], perRow: number, distance: number, corner?: { x: number; y: number }): void {
    const { x, y } = corner ?? below(this.shown.value, distance)
    this.step(inRows(rows, perRow, distance, x, y))
    this.select(rows.map((r) => r.label))
    if (corner === undefined) this.fit()
  }

  /** placeLikeMap gives seats of the tray the places at which students see them on the map. */
  placeLikeMap(): void {
    const rows = this.onFloor.value
    const plan = layout(
      rows.map((r) => ({ ...r, id: r.label })),
      {
        seats: floorPlan(rows, new Map()).seats.map((s, i) => ({ ...s, seatId: rows[i]?.label ?? '' })),
        areas: [],
      },
    )
    const floor = plan.floors[0]
    const next = this.tray.value.flatMap((r): Placed[] => {
      const p = plan.places.get(r.label)
      if (p === undefined || floor === undefined) return []
      return [
        { ...r, x: Math.max(0, Math.round(p.x - floor.dx)), y: Math.max(0, Math.round(p.y - floor.dy)) },
      ]
    })
    this.step(next)
    this.select(next.map((r) => r.label))
    this.fit()
  }

  /** unplace returns the selected seats to the tray. */
  unplace(): void {
    this.step(this.chosen.value.map((r) => ({ ...r, x: undefined, y: undefined, angle: undefined })))
  }

  duplicate(): void {
    const rows = duplicate(this.drawing.value, this.chosen.value)
    this.step(rows, ts().seats.plan.duplicated(rows.map((r) => r.label).join(', ')))
    this.select(rows.map((r) => r.label))
  }

  /** fit shows the whole floor. */
  fit(): void {
    const rows = this.shown.value
    if (rows.length === 0) {
      this.view.value = { x: 0, y: 0, width: 1000, height: 700 }
      return
    }
    const x = Math.min(...rows.map((r) => r.x)) - margin
    const y = Math.min(...rows.map((r) => r.y)) - margin
    const width = Math.max(...rows.map((r) => r.x)) + margin - x
    const height = Math.max(...rows.map((r) => r.y)) + margin - y
    this.view.value = { x, y, width, height }
  }

  /** zoom enlarges the plan by a factor around a point, by default the middle. */
  zoom(factor: number, point?: { x: number; y: number }): void {
    const v = this.view.value
    const p = point ?? { x: v.x + v.width / 2, y: v.y + v.height / 2 }
    const width = Math.min(200_000, Math.max(200, v.width / factor))
    const f = width / v.width
    this.view.value = { x: p.x - (p.x - v.x) * f, y: p.y - (p.y - v.y) * f, width, height: v.height * f }
  }

  /**
   * save sends the changed seats, as a seat file: it changes all of them or none, and only these
   * columns. It reports false, and changes nothing, if another person has changed one of the seats.
   */
  async save(): Promise<boolean> {
    const rows = this.changes.value
    const saved = this.drawing.value
    const created = rows.some((r) => r.id === '')
    const fields: readonly Column[] = created ? columns : ['x_cm', 'y_cm', 'angle', 'desk']
    const file = seatFile(this.branch, rows, fields)
    const answer = await importFile(file, {})
    this.conflict.value = conflicts(answer, this.read.value)
    if (this.conflict.value.length > 0) return false
    await importFile(file, {}, answer.fingerprint)
    if (created) this.restart(await loadSeats(this.branch), [])
    else this.read.value = saved
    return true
  }

  /** takeTheirs reads the seats again. Own changes stay, except those of seats that others have changed. */
  async takeTheirs(): Promise<void> {
    const theirs = new Set(this.conflict.value)
    const mine = this.changes.value.filter((r) => !theirs.has(r.label))
    this.restart(await loadSeats(this.branch), mine)
    this.conflict.value = []
  }

  private restart(seats: Seats, mine: readonly SeatRow[]): void {
    const all = new Map(seats.rows.map((r) => [r.label, r]))
    this.read.value = all
    this.history.reset(all)
    this.drawing.value = all
    // Of a seat that exists, only its place and desk are mine.
    const again = mine.flatMap((r) => {
      const now = all.get(r.label)
      if (now === undefined) return r.id === '' ? [r] : []
      return [{ ...now, x: r.x, y: r.y, angle: r.angle, desk: r.desk }]
    })
    this.step(again)
    this.selected.value = new Set([...this.selected.value].filter((l) => this.drawing.value.has(l)))
  }
}

function floorPlan(rows: readonly SeatRow[], floors: ReadonlyMap<string, string>): FloorPlanInput {
  return {
    seats: rows.map((r) => ({
      seatId: r.id,
      desk: r.desk,
      ...(isPlaced(r) ? { xCm: r.x, yCm: r.y } : {}),
      ...(r.angle === undefined ? {} : { angle: r.angle }),
    })),
    areas: [...floors].map(([name, floor]) => ({ name, floor })),
  }
}

/** metres returns a length in centimetres as metres, such as 1.25. */
export function metres(cm: number): string {
  return number(cm / 100, { minimumFractionDigits: 2 })
}
