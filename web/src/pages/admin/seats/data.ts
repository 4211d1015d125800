import { api, call, type Schema } from '../../../api/client.ts'
import { Problem } from '../../../api/problem.ts'
import { natural } from '../../../map/layout.ts'

export type Amenity = Schema<'Amenity'>

/** amenities are the amenities that a seat can have. */
export const amenities: readonly Amenity[] = [
  'AMENITY_POWER_OUTLET',
  'AMENITY_MONITOR',
  'AMENITY_WHEELCHAIR_ACCESSIBLE',
  'AMENITY_STANDING_DESK',
  'AMENITY_WINDOW',
]

/** SeatRow is a seat with all values that a librarian can set. */
export interface SeatRow {
  /** Empty: the seat does not exist yet. */
  id: string
  label: string
  area: string
  amenities: readonly Amenity[]
  /** Centimetres from the left and from the top; both are undefined if the seat has no place. */
  x: number | undefined
  y: number | undefined
  /** Degrees, clockwise. */
  angle: number | undefined
  desk: string
  outOfService: boolean
}

/** Column is a column of a seat file that a change can set. */
export type Column = 'area' | 'amenities' | 'x_cm' | 'y_cm' | 'angle' | 'desk' | 'out_of_service'

export const columns: readonly Column[] = [
  'area',
  'amenities',
  'x_cm',
  'y_cm',
  'angle',
  'desk',
  'out_of_service',
]

/** Seats are the seats of a branch, sorted by area and label, and the floors of its areas. */
export interface Seats {
  rows: readonly SeatRow[]
  floors: ReadonlyMap<string, string>
}

/** loadSeats reads the seats of a branch with their places. */
export async function loadSeats(branch: string): Promise<Seats> {
  for (let attempt = 0; ; attempt++) {
    const plan = await call(api.GET('/v1/branches/{branch}/plan', { params: { path: { branch } } }))
    const seats = await listSeats(branch)
    const places = new Map(plan.seats.map((p) => [p.seatId, p]))
    // The answers are of two moments. If a seat is in one of them only, a librarian has just changed it.
    const complete = seats.length === places.size && seats.every((s) => places.has(s.id))
    if (!complete && attempt < 3) continue
    const rows = seats.map((s): SeatRow => {
      const place = places.get(s.id)
      return {
        id: s.id,
        label: s.label,
        area: s.area,
        amenities: s.amenities,
        x: place?.xCm,
        y: place?.yCm,
        angle: place?.angle,
        desk: place?.desk ?? '',
        outOfService: s.outOfService,
      }
    })
    rows.sort((a, b) => natural(a.area, b.area) || natural(a.label, b.label))
    return { rows, floors: new Map(plan.areas.map((a) => [a.name, a.floor])) }
  }
}

async function listSeats(branch: string): Promise<Schema<'Seat'>[]> {
  const all: Schema<'Seat'>[] = []
  let pageToken = ''
  do {
    const page = await call(api.GET('/v1/seats', { params: { query: { branch, pageToken } } }))
    all.push(...page.seats)
    pageToken = page.nextPageToken
  } while (pageToken !== '')
  return all
}

/** valueOf returns a value of a seat as a seat file has it. */
export function valueOf(row: SeatRow, column: string): string | undefined {
  switch (column) {
    case 'area':
      return row.area
    case 'amenities':
      return amenities
        .filter((a) => row.amenities.includes(a))
        .map((a) => a.slice('AMENITY_'.length).toLowerCase())
        .join('|')
    case 'x_cm':
      return String(row.x ?? '')
    case 'y_cm':
      return String(row.y ?? '')
    case 'angle':
      return String(row.angle ?? '')
    case 'desk':
      return row.desk
    case 'out_of_service':
      return String(row.outOfService)
  }
  return undefined
}

/** seatFile returns a seat file. A column that it does not have stays as it is. */
export function seatFile(branch: string, rows: readonly SeatRow[], fields: readonly Column[]): string {
  const lines = [['branch', 'label', ...fields].join(',')]
  for (const row of rows) {
    lines.push(
      [branch, formula(row.label), ...fields.map((f) => formula(valueOf(row, f) ?? ''))]
        .map(quoted)
        .join(','),
    )
  }
  return lines.join('\n') + '\n'
}

/** formula marks a text that a spreadsheet program would take for a formula; the import removes the mark. */
function formula(text: string): string {
  return /^'*[=+\-@＝＋－＠]/u.test(text) ? "'" + text : text
}

function quoted(text: string): string {
  return /[",\s]/u.test(text) ? `"${text.replaceAll('"', '""')}"` : text
}

export type ImportAnswer = Schema<'ImportSeatsResponse'>

/** ImportOptions are the parameters of an import beside its file. */
export interface ImportOptions {
  retireMissing?: boolean
  onBookings?: string
  note?: Readonly<Record<string, string>>
  reason?: string
}

/** importFile sends a seat file: a dry run without a fingerprint, else the import itself. */
export async function importFile(
  file: string | Blob,
  options: ImportOptions,
  fingerprint?: string,
): Promise<ImportAnswer> {
  const { note = {}, ...rest } = options
  const notes = Object.fromEntries(Object.entries(note).map(([l, text]) => [`note[${l}]`, text]))
  const query = { ...rest, ...notes, ...(fingerprint === undefined ? { dryRun: true } : { fingerprint }) }
  return call(
    api.POST('/v1/admin/seats:import', {
      params: { query },
      headers: { 'Content-Type': 'text/csv' },
      body: file as string,
      bodySerializer: (body: unknown) => body as string,
    }),
  )
}

/**
 * changeSeats makes a change of seats by a file, which changes all seats or none and whose other
 * columns stay as they are. check sees what the file would do, and can refuse it.
 */
export async function changeSeats(
  file: string,
  options: ImportOptions,
  check: (answer: ImportAnswer) => void = () => {},
): Promise<ImportAnswer> {
  const answer = await importFile(file, options)
  check(answer)
  return importFile(file, options, answer.fingerprint)
}

/** changedSinceCheck is the problem of a change whose effect is not that of its preview. */
export function changedSinceCheck(): Problem {
  return new Problem(409, 'CHANGED_SINCE_CHECK', 'the seats have changed since the preview', {}, [], '')
}

/** conflicts returns the labels of seats that are not as the page has read them. */
export function conflicts(answer: ImportAnswer, read: ReadonlyMap<string, SeatRow>): string[] {
  return answer.changes
    .filter((c) => {
      const row = read.get(c.label)
      if (row === undefined) return c.action !== 'CREATE'
      return c.action === 'CREATE' || c.changes.some((f) => f.from !== valueOf(row, f.field))
    })
    .map((c) => c.label)
}

/** labelsFrom returns n labels that count on from the first one: H-09, H-10, H-11. */
export function labelsFrom(first: string, n: number): string[] {
  const match = /^(.*?)(\d+)(\D*)$/su.exec(first)
  if (match === null) return n === 1 ? [first] : Array.from({ length: n }, (_, i) => `${first}${i + 1}`)
  const [, before = '', digits = '', after = ''] = match
  return Array.from(
    { length: n },
    (_, i) => before + String(Number(digits) + i).padStart(digits.length, '0') + after,
  )
}

/** retireLimit is the number of seats that a call of RetireSeats takes. */
export const retireLimit = 500

/** download lets the browser save a file. */
export function download(name: string, content: Blob): void {
  const url = URL.createObjectURL(content)
  const link = document.createElement('a')
  link.href = url
  link.download = name
  document.body.append(link)
  link.click()
  link.remove()
  setTimeout(() => URL.revokeObjectURL(url), 60_000)
}
