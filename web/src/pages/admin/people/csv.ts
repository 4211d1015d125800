import type { Schema } from '../../../api/client.ts'

/** Line is a user in a pasted table, with the number of its line, from 1 on. */
export interface Line {
  line: number
  user: Schema<'UserSpec'>
}

/** LineFault is a fault of a line. */
export interface LineFault {
  line: number
  detail: 'columns' | 'id' | 'twice' | 'header'
}

const columns = ['studentId', 'name', 'email', 'group', 'card'] as const
type Column = (typeof columns)[number]

/** names are the headings that are understood, in lower case without marks. */
const names = new Map<string, Column>(
  Object.entries({
    studentid: 'studentId',
    id: 'studentId',
    matrikelnummer: 'studentId',
    学号: 'studentId',
    name: 'name',
    姓名: 'name',
    email: 'email',
    mail: 'email',
    邮箱: 'email',
    group: 'group',
    gruppe: 'group',
    用户组: 'group',
    card: 'card',
    karte: 'card',
    ausweis: 'card',
    卡号: 'card',
  } as const),
)

/**
 * parseUsers reads a table that was pasted from a spreadsheet or a CSV file. Its first line names the
 * columns. An empty cell leaves the value of the user as it is; a single hyphen clears it.
 */
export function parseUsers(text: string): { lines: Line[]; faults: LineFault[] } {
  const rows = rowsOf(text)
  const [head, ...body] = rows
  const order = head?.cells.map((c) => names.get(c.toLowerCase().replaceAll(/[\s_\-.]/g, '')))
  if (
    head === undefined ||
    order === undefined ||
    !order.includes('studentId') ||
    order.includes(undefined)
  ) {
    return { lines: [], faults: [{ line: head?.line ?? 1, detail: 'header' }] }
  }
  const lines: Line[] = []
  const faults: LineFault[] = []
  const seen = new Set<string>()
  for (const { line, cells } of body) {
    const user: Partial<Record<Column, string>> = {}
    cells.forEach((cell, i) => {
      const column = order[i]
      if (column !== undefined && cell !== '') user[column] = cell === '-' ? '' : cell
    })
    const { studentId } = user
    const key = studentId?.toUpperCase() ?? ''
    if (cells.length > order.length) faults.push({ line, detail: 'columns' })
    else if (studentId === undefined || studentId === '') faults.push({ line, detail: 'id' })
    else if (seen.has(key)) faults.push({ line, detail: 'twice' })
    else lines.push({ line, user: { ...user, studentId } })
    seen.add(key)
  }
  return { lines, faults }
}

interface Row {
  line: number
  cells: string[]
}

/** rowsOf splits CSV; the separator is a tab, a semicolon or a comma, whichever the first line has. */
function rowsOf(text: string): Row[] {
  const first = text.slice(0, text.search(/[\r\n]|$/))
  const separator = ['\t', ';', ','].find((s) => first.includes(s)) ?? ','
  const rows: Row[] = []
  let cells: string[] = []
  let cell = ''
  let quoted = false
  let line = 1
  let start = 1
  const endRow = (): void => {
    cells.push(cell.trim())
    if (cells.some((c) => c !== '')) rows.push({ line: start, cells })
    cells = []
    cell = ''
  }
  for (let i = 0; i < text.length; i++) {
    const c = text[i]
    if (c === '\n') line++
    if (quoted) {
      if (c !== '"') cell += c
      else if (text[i + 1] === '"') cell += text[++i]
      else quoted = false
    } else if (c === '"' && cell.trim() === '') {
      quoted = true
      cell = ''
    } else if (c === separator) {
      cells.push(cell.trim())
      cell = ''
    } else if (c === '\n') {
      endRow()
      start = line
    } else if (c !== '\r') cell += c
  }
  endRow()
  return rows
}
