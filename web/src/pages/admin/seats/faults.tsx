import { useSignal } from '@preact/signals'
import type { JSX } from 'preact'
import type { FieldFault } from '../../../api/problem.ts'
import { t, ts } from '../../../i18n/text.ts'
import { Button } from '../../../ui/action.tsx'

interface FaultsProps {
  /** Faults whose place is such as "line 17, column x_cm". */
  faults: readonly FieldFault[]
  lines: readonly string[]
}

/** Faults shows the faults of a seat file, each beside its line with the cell marked. */
export function Faults({ faults, lines }: FaultsProps): JSX.Element {
  const text = ts().seats.file
  const limit = useSignal(100)
  const header = cells(lines[0]?.replace('\ufeff', '') ?? '').map((c) => c.text.trim())
  return (
    <>
      <ol class="faults plain-list">
        {faults.slice(0, limit.value).map((f) => {
          const [, digits = '', column] = /^line (\d+)(?:, column (.+))?$/su.exec(f.pointer) ?? []
          const line = lines[Number(digits) - 1] ?? ''
          const hint = (text.columns as Record<string, string>)[column ?? '']
          const cell = column === undefined ? undefined : cells(line)[header.indexOf(column)]
          return (
            <li key={f.pointer + f.detail}>
              <strong>{column === undefined ? text.atLine(digits) : text.atColumn(digits, column)}</strong>{' '}
              <span class="field-fault">{f.detail}</span>
              {hint !== undefined && Number(digits) > 1 && <small> {hint}</small>}
              <code>
                {cell === undefined || cell.from === cell.to ? (
                  line
                ) : (
                  <>
                    {line.slice(0, cell.from)}
                    <mark>{line.slice(cell.from, cell.to)}</mark>
                    {line.slice(cell.to)}
                  </>
                )}
              </code>
            </li>
          )
        })}
      </ol>
      {faults.length > limit.value && <Button onClick={() => (limit.value += 500)}>{t().common.more}</Button>}
    </>
  )
}

/** cells returns the cells of a line of CSV and where they are in it. */
function cells(line: string): { text: string; from: number; to: number }[] {
  const found = []
  let from = 0
  let inQuotes = false
  for (let i = 0; i <= line.length; i++) {
    if (line[i] === '"') inQuotes = !inQuotes
    if (i < line.length && (line[i] !== ',' || inQuotes)) continue
    found.push({ text: line.slice(from, i), from, to: i })
    from = i + 1
  }
  return found
}
