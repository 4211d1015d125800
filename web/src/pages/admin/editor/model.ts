import { natural } from '../../../map/layout.ts'
import { labelsFrom, valueOf, type Column, type SeatRow } from '../seats/data.ts'

/** The seats that the editor changes, by label. Each change makes a new map, so that undo is a step back. */
export type Drawing = ReadonlyMap<string, SeatRow>

/** Placed is a seat with a place. */
export type Placed = SeatRow & { x: number; y: number }

/** farthest is the greatest coordinate that the API takes, in centimetres. */
const farthest = 1_000_000

export function isPlaced(row: SeatRow): row is Placed {
  return row.x !== undefined && row.y !== undefined
}

/** placed returns the seats with these labels that have a place. */
export function placed(drawing: Drawing, labels: Iterable<string>): Placed[] {
  const found: Placed[] = []
  for (const label of labels) {
    const row = drawing.get(label)
    if (row !== undefined && isPlaced(row)) found.push(row)
  }
  return found
}

/** changed returns the drawing with other seats in the place of those with the same labels. */
export function changed(drawing: Drawing, rows: readonly SeatRow[]): Drawing {
  const next = new Map(drawing)
  for (const row of rows) next.set(row.label, row)
  return next
}

/** move moves seats together; none leaves the plan. With grid, the first of them snaps to it. */
export function move(rows: readonly Placed[], dx: number, dy: number, grid = 0): Placed[] {
  const first = rows[0]
  if (first === undefined) return []
  if (grid > 0) {
    dx = snap(first.x + dx, grid) - first.x
    dy = snap(first.y + dy, grid) - first.y
  }
  dx = Math.max(dx, -Math.min(...rows.map((r) => r.x)))
  dy = Math.max(dy, -Math.min(...rows.map((r) => r.y)))
  return rows.map((r) => at(r, r.x + dx, r.y + dy))
}

function snap(value: number, grid: number): number {
  return Math.round(value / grid) * grid
}

function at(row: SeatRow, x: number, y: number): Placed {
  const within = (v: number): number => Math.min(farthest, Math.max(0, Math.round(v)))
  return { ...row, x: within(x), y: within(y) }
}

/** rotate turns seats around their common centre, and their directions with them. */
export function rotate(rows: readonly Placed[], degrees: number): Placed[] {
  const { x, y } = centre(rows)
  const a = (degrees * Math.PI) / 180
  const turned = rows.map((r) => ({
    ...r,
    x: x + (r.x - x) * Math.cos(a) - (r.y - y) * Math.sin(a),
    y: y + (r.x - x) * Math.sin(a) + (r.y - y) * Math.cos(a),
    angle: ((((r.angle ?? 0) + degrees) % 360) + 360) % 360,
  }))
  return move(turned, 0, 0)
}

function centre(rows: readonly Placed[]): { x: number; y: number } {
  const middle = (all: number[]): number => (Math.min(...all) + Math.max(...all)) / 2
  return { x: middle(rows.map((r) => r.x)), y: middle(rows.map((r) => r.y)) }
}

/** align puts seats into one row (axis y) or one column (axis x), in the middle of where they are. */
export function align(rows: readonly Placed[], axis: 'x' | 'y'): Placed[] {
  const middle = Math.round(centre(rows)[axis])
  return rows.map((r) => ({ ...r, [axis]: middle }))
}

/** distribute makes the distances between seats equal; the outermost two stay. */
export function distribute(rows: readonly Placed[], axis: 'x' | 'y'): Placed[] {
  const sorted = [...rows].sort((a, b) => a[axis] - b[axis])
  const from = sorted[0]?.[axis] ?? 0
  const step = ((sorted.at(-1)?.[axis] ?? 0) - from) / Math.max(1, sorted.length - 1)
  return sorted.map((r, i) => ({ ...r, [axis]: Math.round(from + i * step) }))
}

/** inRows places seats in rows of n, from a corner on. */
export function inRows(
  rows: readonly SeatRow[],
  n: number,
  distance: number,
  x: number,
  y: number,
): Placed[] {
  return rows.map((r, i) => at(r, x + (i % n) * distance, y + Math.floor(i / n) * distance))
}

/** below returns the corner of the free space under all seats. */
export function below(rows: readonly Placed[], distance: number): { x: number; y: number } {
  if (rows.length === 0) return { x: distance, y: distance }
  return {
    x: snap(Math.min(...rows.map((r) => r.x)), 25),
    y: snap(Math.max(...rows.map((r) => r.y)) + 2 * distance, 25),
  }
}

/**
 * duplicate returns new seats beside the given ones, with the next free labels and the next desk. The
 * labels count on from the last one, such as R-09 after R-08.
 */
export function duplicate(drawing: Drawing, rows: readonly Placed[]): Placed[] {
  const sorted = [...rows].sort((a, b) => natural(a.label, b.label))
  const last = sorted.at(-1)
  if (last === undefined) return []
  const free = labelsFrom(last.label, drawing.size + rows.length + 1).filter((l) => !drawing.has(l))
  const desks = new Map<string, string>()
  const names = new Set([...drawing.values()].map((r) => r.desk))
  for (const r of sorted) {
    if (r.desk === '' || desks.has(r.desk)) continue
    const next =
      labelsFrom(r.desk, names.size + 2)
        .slice(1)
        .find((d) => !names.has(d)) ?? ''
    desks.set(r.desk, next)
    names.add(next)
  }
  const { dx, dy } = freeSpace(drawing, rows)
  return sorted.map((r, i) => ({
    ...at(r, r.x + dx, r.y + dy),
    id: '',
    label: free[i] ?? `${last.label}-${i + 1}`,
    desk: desks.get(r.desk) ?? '',
  }))
}

/** freeSpace returns how far seats must be moved, to the right or down, to lie on no other seat of their areas. */
function freeSpace(drawing: Drawing, rows: readonly Placed[]): { dx: number; dy: number } {
  const areas = new Set(rows.map((r) => r.area))
  const others = placed(drawing, drawing.keys()).filter((o) => areas.has(o.area))
  const extent = (axis: 'x' | 'y'): number =>
    Math.max(...rows.map((r) => r[axis])) - Math.min(...rows.map((r) => r[axis])) + 150
  for (let n = 1; ; n++) {
    for (const [dx, dy] of [
      [n * extent('x'), 0],
      [0, n * extent('y')],
    ] as const) {
      const covers = (r: Placed): boolean =>
        others.some((o) => Math.abs(o.x - r.x - dx) < 75 && Math.abs(o.y - r.y - dy) < 75)
      if (n > 50 || !rows.some(covers)) return { dx, dy }
    }
  }
}

const drawn: readonly Column[] = ['x_cm', 'y_cm', 'angle', 'desk']

/** changes returns the seats that the drawing changes or creates. */
export function changes(read: Drawing, drawing: Drawing): SeatRow[] {
  return [...drawing.values()].filter((row) => {
    const was = read.get(row.label)
    return was === undefined || (was !== row && drawn.some((c) => valueOf(was, c) !== valueOf(row, c)))
  })
}

/** matching returns the labels that a text names: "R-01 R-03", the begin of labels, or a range such as "R-01…R-12". */
export function matching(drawing: Drawing, text: string): string[] {
  const all = [...drawing.keys()]
  const plain = (label: string): string => label.toLowerCase()
  const whole = all.filter((label) => plain(label) === plain(text.trim()))
  if (whole.length > 0) return whole
  const found = text.split(/[\s,;]+/u).flatMap((word) => {
    const [from = '', to] = plain(word).split(/…|\.\.+/u)
    if (from === '') return []
    if (to !== undefined) return all.filter((l) => natural(plain(l), from) >= 0 && natural(plain(l), to) <= 0)
    const exact = all.filter((l) => plain(l) === from)
    return exact.length > 0 ? exact : all.filter((l) => plain(l).startsWith(from))
  })
  return [...new Set(found)]
}

/** History is the drawing with the steps that undo and redo go through. */
export class History {
  private back: Drawing[] = []
  private forth: Drawing[] = []

  constructor(public drawing: Drawing) {}

  get canUndo(): boolean {
    return this.back.length > 0
  }

  get canRedo(): boolean {
    return this.forth.length > 0
  }

  /** reset starts a new history. */
  reset(drawing: Drawing): void {
    this.back = []
    this.forth = []
    this.drawing = drawing
  }

  /** step makes a change that undo takes back. */
  step(next: Drawing): void {
    this.back.push(this.drawing)
    this.forth = []
    this.drawing = next
  }

  undo(): void {
    const before = this.back.pop()
    if (before === undefined) return
    this.forth.push(this.drawing)
    this.drawing = before
  }

  redo(): void {
    const after = this.forth.pop()
    if (after === undefined) return
    this.back.push(this.drawing)
    this.drawing = after
  }
}
