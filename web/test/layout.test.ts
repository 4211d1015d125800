import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  findByLabel,
  layout,
  natural,
  neighbour,
  type Direction,
  type FloorPlanInput,
  type Plan,
  type SeatInput,
} from '../src/map/layout.ts'

function seats(area: string, n: number, from = 1): SeatInput[] {
  return Array.from({ length: n }, (_, i) => ({ id: String(from + i), area, label: `${area[0]}-${i + 1}` }))
}

function plan(
  all: readonly SeatInput[],
  places: FloorPlanInput['seats'],
  floors: Record<string, string> = {},
): Plan {
  return layout(all, {
    seats: places,
    areas: Object.entries(floors).map(([name, floor]) => ({ name, floor })),
  })
}

/** overlaps returns pairs of seats that are drawn over each other. */
function overlaps(p: Plan): string[] {
  const found: string[] = []
  const all = [...p.places.values()]
  for (const [i, a] of all.entries()) {
    for (const b of all.slice(i + 1)) {
      if (Math.abs(a.x - b.x) < p.seatSize && Math.abs(a.y - b.y) < p.seatSize)
        found.push(`${a.label} and ${b.label}`)
    }
  }
  return found
}

function reachable(p: Plan): Set<string> {
  const reached = new Set<string>()
  const waiting = [p.order[0] as string]
  for (let id = waiting.pop(); id !== undefined; id = waiting.pop()) {
    if (reached.has(id)) continue
    reached.add(id)
    for (const d of ['left', 'up', 'right', 'down'] as Direction[]) {
      const next = neighbour(p, id, d)
      if (next !== undefined) waiting.push(next)
    }
  }
  return reached
}

/** random returns numbers of a fixed sequence. */
function random(seed: number): () => number {
  let s = seed
  return () => (s = (s * 1103515245 + 12345) % 2147483648) / 2147483648
}

test('labels are sorted as people count', () => {
  assert.deepEqual(['M-10', 'M-2', 'M-1', 'A-3'].sort(natural), ['A-3', 'M-1', 'M-2', 'M-10'])
})

test('a branch without coordinates gives one block an area', () => {
  const all = [...seats('Hall', 37), ...seats('Quiet', 5, 100), ...seats('Annex', 1, 200)]
  const p = layout(all)
  assert.deepEqual(
    p.areas.map((a) => a.name),
    ['Annex', 'Hall', 'Quiet'],
  )
  assert.deepEqual(overlaps(p), [])
  for (const s of p.places.values()) {
    const area = p.areas.find((a) => a.name === s.area)
    assert.ok(
      area !== undefined && s.x > area.left && s.x < area.right && s.y > area.top && s.y < area.bottom,
    )
    for (const other of p.areas) {
      if (other !== area)
        assert.ok(s.x < other.left || s.x > other.right || s.y < other.top || s.y > other.bottom)
    }
  }
  assert.equal(p.order.indexOf('2') - p.order.indexOf('1'), 1)
})

test('seats at one desk are beside each other', () => {
  const all = seats('Hall', 12)
  const p = plan(
    all,
    all.map((s, i) => ({ seatId: s.id, desk: `D${1 + (i % 3)}` })),
  )
  assert.deepEqual(overlaps(p), [])
  assert.equal(p.desks.length, 3)
  for (const d of p.desks) assert.ok(d.right - d.left <= 100 && d.bottom - d.top <= 100, JSON.stringify(d))
})

test('seats without coordinates are beside those with coordinates', () => {
  const all = seats('Hall', 30)
  const p = plan(
    all,
    all.slice(0, 20).map((s, i) => ({
      seatId: s.id,
      xCm: 5000 + (i % 5) * 120,
      yCm: 9000 + Math.floor(i / 5) * 120,
      desk: '',
    })),
  )
  assert.deepEqual(overlaps(p), [])
  assert.deepEqual(
    p.areas.map((a) => a.known),
    [true, false],
  )
  const [floor] = p.floors
  const first = p.places.get('1')
  assert.ok(floor !== undefined && first !== undefined)
  assert.deepEqual([first.x - floor.dx, first.y - floor.dy], [5000, 9000])
  assert.ok(p.bounds.right < 2000 && p.bounds.bottom < 2000, 'the plan begins at its first seat')
})

test('floors with the same coordinates lie one below the other', () => {
  const all = [...seats('Hall', 9), ...seats('Top', 9, 100)]
  const p = plan(
    all,
    all.map((s, i) => ({ seatId: s.id, xCm: (i % 3) * 100, yCm: Math.floor((i % 9) / 3) * 100, desk: '' })),
    { Hall: '1', Top: '2' },
  )
  assert.deepEqual(overlaps(p), [])
  assert.deepEqual(
    p.floors.map((f) => f.name),
    ['1', '2'],
  )
  const [one, two] = p.floors
  assert.ok(one !== undefined && two !== undefined && one.bottom < two.top)
})

test('seats that are close are drawn smaller', () => {
  const all = seats('Hall', 20)
  const p = plan(
    all,
    all.map((s, i) => ({ seatId: s.id, xCm: i * 50, yCm: 0, desk: '' })),
  )
  assert.ok(p.seatSize < 50)
  assert.deepEqual(overlaps(p), [])
})

test('arrow keys move to the next seat of the row, and to the seat above or below', () => {
  const all = seats('Hall', 40)
  const p = plan(
    all,
    all.map((s, i) => ({ seatId: s.id, xCm: (i % 8) * 100, yCm: Math.floor(i / 8) * 100, desk: '' })),
  )
  assert.equal(neighbour(p, '10', 'left'), '9')
  assert.equal(neighbour(p, '10', 'right'), '11')
  assert.equal(neighbour(p, '10', 'up'), '2')
  assert.equal(neighbour(p, '10', 'down'), '18')
  assert.equal(neighbour(p, '1', 'left'), undefined)
})

test('every seat is reachable with the arrow keys', () => {
  for (let seed = 1; seed <= 60; seed++) {
    const next = random(seed)
    const all = seats('Hall', 2 + ((seed * 7) % 120))
    // Few values of x and y: many seats are in one row, and some in one place.
    const p = plan(
      all,
      all.map((s) => ({
        seatId: s.id,
        xCm: Math.floor(next() * 2000),
        yCm: Math.floor(next() * (seed % 2 ? 9 : 900)),
        desk: '',
      })),
    )
    assert.equal(reachable(p).size, all.length, `layout ${seed}`)
  }
})

test('a label is found as it is typed', () => {
  const p = layout([
    { id: '1', area: 'A', label: 'M-07' },
    { id: '2', area: 'A', label: 'M-10' },
    { id: '3', area: 'A', label: 'Q-1' },
  ])
  assert.equal(findByLabel(p, 'm'), '1')
  assert.equal(findByLabel(p, 'm1'), '2')
  assert.equal(findByLabel(p, 'M-7'), '1')
  assert.equal(findByLabel(p, 'q'), '3')
  assert.equal(findByLabel(p, 'x'), undefined)
  assert.equal(findByLabel(p, '-'), undefined)
})

test('1,000 seats are laid out quickly', () => {
  const all = ['Hall', 'Quiet', 'Window', 'Top'].flatMap((a, i) => seats(a, 250, 1000 * i))
  const start = performance.now()
  const p = layout(all)
  neighbour(p, '1', 'left')
  const took = performance.now() - start
  assert.ok(took < 2000, `${took} ms`)
  assert.deepEqual(overlaps(p), [])
})
