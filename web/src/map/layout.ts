/**
 * The layout of a branch: a place in centimetres for each seat, whether the library has measured it or
 * not. All functions are pure: they know nothing of the page.
 */

/** SeatInput is what the layout needs of a seat. */
export interface SeatInput {
  id: string
  label: string
  area: string
}

/** FloorPlanInput is the answer of GET /v1/branches/{branch}/plan. */
export interface FloorPlanInput {
  seats: readonly { seatId: string; xCm?: number; yCm?: number; angle?: number; desk: string }[]
  areas: readonly { name: string; floor: string }[]
}

export interface Box {
  left: number
  top: number
  right: number
  bottom: number
}

/** Place is a seat on the plan. */
export interface Place extends SeatInput {
  /** Centre of the seat on the plan, in centimetres from the left and from the top. */
  x: number
  y: number
  /** Direction in degrees, clockwise; 0 if it is not known. */
  angle: number
  /** Name of the desk; empty: none. */
  desk: string
  floor: string
  /** Whether the library has set the place. Otherwise it is one of the tidy grid. */
  known: boolean
}

/** PlanArea is the box of an area. An area has a second one for its seats without coordinates. */
export interface PlanArea extends Box {
  name: string
  floor: string
  known: boolean
}

/** PlanFloor is a floor. Each floor has coordinates of its own, so they lie one below the other. */
export interface PlanFloor extends Box {
  name: string
  /** The place of a seat on the plan is its xCm + dx, yCm + dy. */
  dx: number
  dy: number
}

/** PlanDesk is the box of the seats at one desk. */
export interface PlanDesk extends Box {
  name: string
  area: string
}

/** Plan is the layout of a branch. */
export interface Plan {
  places: ReadonlyMap<string, Place>
  /** The ids of all seats, by floor, area and label: the order of the list. */
  order: readonly string[]
  areas: readonly PlanArea[]
  floors: readonly PlanFloor[]
  desks: readonly PlanDesk[]
  /** Side of the square in which a seat is drawn: no two of them overlap much. */
  seatSize: number
  bounds: Box
}

const cell = 100 // centimetres from seat to seat in the grid
const aisle = 50 // between two pairs of rows, and between two desks
const padding = 35 // between the seats of an area and its edge
const title = 70 // for the name of an area, above its seats
const margin = 20 // around the plan
const gap = 80 // between areas without coordinates, and between floors

const collator = new Intl.Collator('en', { numeric: true })

/** natural compares labels as people count: M-2 is before M-10. */
export function natural(a: string, b: string): number {
  return collator.compare(a, b) || (a < b ? -1 : a > b ? 1 : 0)
}

/** layout returns the plan of a branch. Without a floor plan, all seats are laid out as a grid. */
export function layout(seats: readonly SeatInput[], floorPlan?: FloorPlanInput): Plan {
  const given = new Map(floorPlan?.seats.map((s) => [s.seatId, s]))
  const floorOf = new Map(floorPlan?.areas.map((a) => [a.name, a.floor]))
  const places = [...seats]
    .sort((a, b) => natural(a.label, b.label))
    .map((s): Place => {
      const g = given.get(s.id)
      const known = g?.xCm !== undefined && g.yCm !== undefined
      return {
        id: s.id,
        label: s.label,
        area: s.area,
        x: g?.xCm ?? 0,
        y: g?.yCm ?? 0,
        angle: g?.angle ?? 0,
        desk: g?.desk ?? '',
        floor: floorOf.get(s.area) ?? '',
        known,
      }
    })

  const floors: PlanFloor[] = []
  const areas: PlanArea[] = []
  const order: string[] = []
  let top = margin
  const several = new Set(places.map((p) => p.floor)).size > 1
  for (const [floor, onFloor] of sorted(groups(places, (p) => p.floor))) {
    const start = top
    if (several) top += title // for the name of the floor
    const byArea = sorted(groups(onFloor, (p) => p.area))
    let dx = margin
    let dy = top
    const known = onFloor.filter((p) => p.known)
    if (known.length > 0) {
      const b = boundsOf(known)
      dx = margin + padding + cell / 2 - b.left
      dy = top + title + cell / 2 - b.top
      for (const p of known) {
        p.x += dx
        p.y += dy
      }
      for (const [name, all] of byArea) {
        const some = all.filter((p) => p.known)
        if (some.length > 0) areas.push({ name, floor, known: true, ...frame(some) })
      }
    }
    const right = Math.max(margin, ...areas.filter((a) => a.floor === floor).map((a) => a.right))
    const blocks = byArea.flatMap(([name, all]) => {
      const unknown = all.filter((p) => !p.known)
      return unknown.length > 0 ? [{ name, seats: unknown, ...block(unknown) }] : []
    })
    if (known.length > 0) top = Math.max(...areas.map((a) => a.bottom)) + (blocks.length > 0 ? gap : 0)
    // Blocks stand side by side while they fit into a plan that is about as wide as it is high.
    const surface = blocks.reduce((sum, b) => sum + (b.width + gap) * (b.height + gap), 0)
    const width = Math.max(right - margin, Math.sqrt(surface * 1.1), ...blocks.map((b) => b.width))
    let left = margin
    let rowBottom = top
    for (const b of blocks) {
      if (left > margin && left + b.width > margin + width) {
        left = margin
        top = rowBottom + gap
      }
      for (const p of b.seats) {
        p.x += left
        p.y += top
      }
      areas.push({
        name: b.name,
        floor,
        known: false,
        left,
        top,
        right: left + b.width,
        bottom: top + b.height,
      })
      left += b.width + gap
      rowBottom = Math.max(rowBottom, top + b.height)
    }
    top = rowBottom
    const edges = areas.filter((a) => a.floor === floor)
    floors.push({
      name: floor,
      dx,
      dy,
      left: margin,
      top: start,
      right: Math.max(...edges.map((a) => a.right)),
      bottom: top,
    })
    for (const [, all] of byArea) order.push(...all.map((p) => p.id))
    top += gap
  }
  const bounds: Box = {
    left: 0,
    top: 0,
    right: Math.max(cell, ...floors.map((f) => f.right)) + margin,
    bottom: Math.max(cell, ...floors.map((f) => f.bottom)) + margin,
  }
  return {
    places: new Map(places.map((p) => [p.id, p])),
    order,
    areas,
    floors,
    desks: desksOf(places),
    seatSize: seatSize(places),
    bounds,
  }
}

/**
 * block places the seats of an area on a grid whose corner is 0, 0: first each desk with its seats on
 * two sides, then the seats without a desk in pairs of rows.
 */
function block(seats: readonly Place[]): { width: number; height: number } {
  const columns = Math.min(seats.length, Math.max(4, Math.min(14, Math.ceil(Math.sqrt(seats.length * 1.6)))))
  const desks = sorted(groups(seats, (p) => p.desk)).filter(([name]) => name !== '')
  let x = 0
  let y = 0
  let width = 0
  let rowHeight = 0
  for (const [, at] of desks) {
    const across = Math.min(columns, Math.ceil(at.length / 2))
    const down = Math.ceil(at.length / across)
    if (x > 0 && x + across * cell > columns * cell) {
      x = 0
      y += rowHeight + aisle
      rowHeight = 0
    }
    at.forEach((p, i) => {
      p.x = x + (i % across) * cell
      p.y = y + Math.floor(i / across) * cell
    })
    width = Math.max(width, x + across * cell)
    rowHeight = Math.max(rowHeight, down * cell)
    x += across * cell + aisle
  }
  if (rowHeight > 0) y += rowHeight + aisle
  const single = seats.filter((p) => p.desk === '')
  single.forEach((p, i) => {
    const row = Math.floor(i / columns)
    p.x = (i % columns) * cell
    p.y = y + row * cell + Math.floor(row / 2) * aisle
  })
  if (single.length > 0) {
    const rows = Math.ceil(single.length / columns)
    width = Math.max(width, Math.min(columns, single.length) * cell)
    y += rows * cell + Math.floor((rows - 1) / 2) * aisle
  } else {
    y -= aisle
  }
  for (const p of seats) {
    p.x += padding + cell / 2
    p.y += title + cell / 2
  }
  return { width: width + 2 * padding, height: y + title + padding }
}

/** frame returns the box around the seats of an area, with room for its name. */
function frame(seats: readonly Place[]): Box {
  const b = boundsOf(seats)
  const half = cell / 2
  return {
    left: b.left - half - padding,
    top: b.top - half - title,
    right: b.right + half + padding,
    bottom: b.bottom + half + padding,
  }
}

function desksOf(places: readonly Place[]): PlanDesk[] {
  const found: PlanDesk[] = []
  for (const [, seats] of groups(
    places.filter((p) => p.desk !== ''),
    (p) => JSON.stringify([p.floor, p.area, p.desk, p.known]),
  )) {
    const [first] = seats
    if (first === undefined || seats.length < 2) continue
    found.push({ name: first.desk, area: first.area, ...boundsOf(seats) })
  }
  return found
}

/** seatSize returns a side for the seats at which hardly any two of them overlap: close ones get smaller. */
function seatSize(places: readonly Place[]): number {
  const near = places.map((p) => {
    let least = cell
    for (const q of places) {
      if (q === p || Math.abs(q.x - p.x) >= least || Math.abs(q.y - p.y) >= least) continue
      least = Math.max(Math.abs(q.x - p.x), Math.abs(q.y - p.y))
    }
    return least
  })
  near.sort((a, b) => a - b)
  const typical = near[Math.floor(near.length * 0.05)] ?? cell
  return Math.max(30, Math.min(80, typical * 0.86))
}

function boundsOf(places: readonly { x: number; y: number }[]): Box {
  const b: Box = { left: Infinity, top: Infinity, right: -Infinity, bottom: -Infinity }
  for (const p of places) {
    b.left = Math.min(b.left, p.x)
    b.top = Math.min(b.top, p.y)
    b.right = Math.max(b.right, p.x)
    b.bottom = Math.max(b.bottom, p.y)
  }
  return b
}

function groups<T>(all: readonly T[], key: (item: T) => string): Map<string, T[]> {
  const found = new Map<string, T[]>()
  for (const item of all) {
    const k = key(item)
    const group = found.get(k)
    if (group === undefined) found.set(k, [item])
    else group.push(item)
  }
  return found
}

/** sorted returns groups in the natural order of their names; the one without a name is the last. */
function sorted<T>(found: Map<string, T>): [string, T][] {
  return [...found].sort(([a], [b]) => Number(a === '') - Number(b === '') || natural(a, b))
}

export type Direction = 'left' | 'up' | 'right' | 'down'

const directions: readonly Direction[] = ['left', 'up', 'right', 'down']
const graphs = new WeakMap<Plan, Map<string, (string | undefined)[]>>()

/**
 * neighbour returns the seat to which an arrow key moves from a seat: the nearest one in that
 * direction, where a deviation from the direction counts more than the distance. Undefined: there is
 * none. From the first seat of the order, every seat is reachable.
 */
export function neighbour(plan: Plan, id: string, direction: Direction): string | undefined {
  let graph = graphs.get(plan)
  if (graph === undefined) graphs.set(plan, (graph = connect(plan)))
  return graph.get(id)?.[directions.indexOf(direction)]
}

/** connect computes the neighbours of all seats: 1,000 seats take about 20 ms, at the first arrow key. */
function connect(plan: Plan): Map<string, (string | undefined)[]> {
  const graph = new Map<string, (string | undefined)[]>()
  const all = [...plan.places.values()]
  for (const p of all) {
    const next: (string | undefined)[] = [undefined, undefined, undefined, undefined]
    const cost = [Infinity, Infinity, Infinity, Infinity]
    for (const q of all) {
      if (q === p) continue
      const dx = q.x - p.x
      const dy = q.y - p.y
      // Each seat is in the direction of its larger distance, and beside the diagonal in both.
      for (let d = 0; d < 4; d++) {
        const along = d === 0 ? -dx : d === 1 ? -dy : d === 2 ? dx : dy
        const across = Math.abs(d === 0 || d === 2 ? dy : dx)
        if (along <= 0 || across > along * 2) continue
        const c = along + 2.5 * across
        if (c < (cost[d] as number)) {
          cost[d] = c
          next[d] = q.id
        }
      }
    }
    graph.set(p.id, next)
  }
  // A seat that no key reaches is inserted between its nearest seat and the next one in that direction,
  // so whatever was reachable stays so.
  const first = plan.order[0]
  const reached = new Set<string>()
  const visit = (from: string): void => {
    const waiting = [from]
    for (let id = waiting.pop(); id !== undefined; id = waiting.pop()) {
      if (reached.has(id)) continue
      reached.add(id)
      for (const n of graph.get(id) ?? []) if (n !== undefined) waiting.push(n)
    }
  }
  if (first !== undefined) visit(first)
  for (const t of all) {
    if (reached.has(t.id)) continue
    let nearest: Place | undefined
    for (const s of all) {
      if (!reached.has(s.id)) continue
      if (
        nearest === undefined ||
        Math.hypot(s.x - t.x, s.y - t.y) < Math.hypot(nearest.x - t.x, nearest.y - t.y)
      )
        nearest = s
    }
    if (nearest === undefined) continue
    const dx = t.x - nearest.x
    const dy = t.y - nearest.y
    const d = Math.abs(dx) >= Math.abs(dy) ? (dx < 0 ? 0 : 2) : dy < 0 ? 1 : 3
    const from = graph.get(nearest.id) as (string | undefined)[]
    const to = graph.get(t.id) as (string | undefined)[]
    to[d] = from[d]
    from[d] = t.id
    visit(t.id)
  }
  return graph
}

/**
 * findByLabel returns the first seat whose label begins with the text, as it is typed: case, hyphens
 * and blanks do not matter, and neither do zeros before a number.
 */
export function findByLabel(plan: Plan, typed: string): string | undefined {
  for (const plain of [letters, numbers]) {
    const wanted = plain(typed)
    if (wanted === '') return undefined
    const found = plan.order.find((id) => plain(plan.places.get(id)?.label ?? '').startsWith(wanted))
    if (found !== undefined) return found
  }
  return undefined
}

function letters(label: string): string {
  return label.toLowerCase().replace(/[\s\-_.]/g, '')
}

function numbers(label: string): string {
  return letters(label).replace(/(^|\D)0+(?=\d)/g, '$1')
}
