import { useComputed, useSignal } from '@preact/signals'
import { useEffect, useRef } from 'preact/hooks'
import type { JSX } from 'preact'
import { t, ts } from '../../i18n/text.ts'
import { number } from '../../i18n/time.ts'
import { isAdmin } from '../../state/session.ts'
import { Button, useAction } from '../../ui/action.tsx'
import { Fault } from '../../ui/problem.tsx'
import { branch, loadBranches } from './branch.ts'
import { AddDialog } from './seats/add.tsx'
import { Areas } from './seats/areas.tsx'
import { Branches } from './seats/branches.tsx'
import { amenities, loadSeats, type Amenity, type SeatRow, type Seats } from './seats/data.ts'
import { EditDialog } from './seats/edit.tsx'
import { RetireDialog } from './seats/retire.tsx'

const pageSize = 300 // seats that are drawn at once

type Open = 'add' | 'edit' | 'retire' | undefined
type State = '' | 'out' | 'in' | 'place' | 'noplace'

/** Section is the table of the seats of a branch, with the dialogs that change them. */
export function Section(): JSX.Element {
  const text = ts().seats.list
  const code = branch.value?.code ?? ''
  const load = useAction()
  const seats = useSignal<Seats | undefined>(undefined)
  const selected = useSignal<ReadonlySet<string>>(new Set())
  const open = useSignal<Open>(undefined)
  const search = useSignal('')
  const area = useSignal('')
  const need = useSignal<Amenity | ''>('')
  const state = useSignal<State>('')
  const limit = useSignal(pageSize)
  const bar = useRef<HTMLDivElement>(null)

  function reload(after = false): void {
    void load.run(async () => {
      seats.value = await loadSeats(code)
      const ids = new Set(seats.value.rows.map((r) => r.id))
      selected.value = new Set([...selected.value].filter((id) => ids.has(id)))
      // The button that opened the dialog may have been removed, and the focus with it.
      if (after) setTimeout(() => document.activeElement === document.body && bar.current?.focus())
    })
  }
  useEffect(() => reload(), [code])

  const found = useComputed(() => {
    const wanted = search.value.trim().toLowerCase()
    return (seats.value?.rows ?? []).filter(
      (r) =>
        (wanted === '' || [r.label, r.area, r.desk].some((s) => s.toLowerCase().includes(wanted))) &&
        (area.value === '' || r.area === area.value) &&
        (need.value === '' || r.amenities.includes(need.value)) &&
        (state.value === '' ||
          (state.value === 'out' && r.outOfService) ||
          (state.value === 'in' && !r.outOfService) ||
          (state.value === 'place' && r.x !== undefined) ||
          (state.value === 'noplace' && r.x === undefined)),
    )
  })
  const all = seats.value
  if (all === undefined) {
    return load.problem.value === undefined ? (
      <p class="loading" role="status">
        {t().common.loading}
      </p>
    ) : (
      <>
        <Fault problem={load.problem.value} />
        <Button onClick={() => reload()}>{t().common.retry}</Button>
      </>
    )
  }
  const chosen = all.rows.filter((r) => selected.value.has(r.id))
  const areaNames = [...all.floors.keys()]
  const shown = found.value.slice(0, limit.value)
  const close = (): void => void (open.value = undefined)
  const done = (): void => {
    close()
    reload(true)
    void loadBranches().catch(() => {}) // only the numbers of the branch
  }
  const choose = (rows: readonly SeatRow[], on: boolean): void => {
    const next = new Set(selected.value)
    for (const r of rows) on ? next.add(r.id) : next.delete(r.id)
    selected.value = next
  }

  return (
    <div class="seats-page">
      <div class="row">
        <Button kind="main" onClick={() => (open.value = 'add')}>
          {text.add}
        </Button>
        <span>
          {text.count(number(all.rows.length), number(all.rows.filter((r) => r.outOfService).length))}
        </span>
      </div>
      <div class="seats-filter" role="search">
        <label>
          {text.search}
          <input type="search" value={search.value} onInput={(e) => (search.value = e.currentTarget.value)} />
        </label>
        <label>
          {text.area}
          <select value={area.value} onChange={(e) => (area.value = e.currentTarget.value)}>
            <option value="">{text.all}</option>
            {areaNames.map((a) => (
              <option key={a} value={a}>
                {a}
              </option>
            ))}
          </select>
        </label>
        <label>
          {text.amenity}
          <select value={need.value} onChange={(e) => (need.value = e.currentTarget.value as Amenity | '')}>
            <option value="">{text.all}</option>
            {amenities.map((a) => (
              <option key={a} value={a}>
                {t().common.amenity[a]}
              </option>
            ))}
          </select>
        </label>
        <label>
          {text.state}
          <select value={state.value} onChange={(e) => (state.value = e.currentTarget.value as State)}>
            <option value="">{text.all}</option>
            <option value="in">{text.inService}</option>
            <option value="out">{text.outOfService}</option>
            <option value="place">{text.withPlace}</option>
            <option value="noplace">{text.withoutPlace}</option>
          </select>
        </label>
      </div>
      <Fault problem={load.problem.value} />
      <div class="row seats-selection" ref={bar} tabIndex={-1}>
        <Button disabled={found.value.length === 0} onClick={() => choose(found.value, true)}>
          {text.selectFound(number(found.value.length))}
        </Button>
        {chosen.length > 0 && (
          <>
            <strong role="status">{text.selected(number(chosen.length))}</strong>
            <Button onClick={() => (open.value = 'edit')}>{text.edit}</Button>
            <Button kind="danger" onClick={() => (open.value = 'retire')}>
              {text.retire}
            </Button>
            <Button onClick={() => (selected.value = new Set())}>{text.selectNone}</Button>
          </>
        )}
      </div>
      {all.rows.length === 0 ? (
        <p>{text.none}</p>
      ) : (
        found.value.length === 0 && <p role="status">{text.noneFound}</p>
      )}
      {shown.length > 0 && (
        <table class="seats-table">
          <thead>
            <tr>
              <th scope="col">
                <span class="visually-hidden">{text.select}</span>
              </th>
              <th scope="col">{text.label}</th>
              <th scope="col">{text.amenities}</th>
              <th scope="col">{text.state}</th>
              <th scope="col">
                <span class="visually-hidden">{text.edit}</span>
              </th>
            </tr>
          </thead>
          {groups(shown).map(([name, rows]) => {
            const every = rows.every((r) => selected.value.has(r.id))
            return (
              <tbody key={name}>
                <tr class="seats-area">
                  <td>
                    <label class="target">
                      <input
                        type="checkbox"
                        aria-label={text.selectArea(name)}
                        checked={every}
                        onChange={() => choose(rows, !every)}
                      />
                    </label>
                  </td>
                  <th scope="rowgroup" colSpan={4}>
                    {name}
                    {all.floors.get(name) ? (
                      <small> · {text.onFloor(all.floors.get(name) ?? '')}</small>
                    ) : null}
                  </th>
                </tr>
                {rows.map((r) => (
                  <Row
                    key={r.id}
                    row={r}
                    selected={selected.value.has(r.id)}
                    onSelect={(on) => choose([r], on)}
                    onEdit={() => {
                      selected.value = new Set([r.id])
                      open.value = 'edit'
                    }}
                  />
                ))}
              </tbody>
            )
          })}
        </table>
      )}
      {found.value.length > shown.length && (
        <Button onClick={() => (limit.value += pageSize)}>{t().common.more}</Button>
      )}
      <Areas areas={all.floors} rows={all.rows} onDone={done} />
      {isAdmin.value && <Branches />}
      {open.value === 'add' && <AddDialog areas={areaNames} onDone={done} onClose={close} />}
      {open.value === 'edit' && <EditDialog rows={chosen} areas={areaNames} onDone={done} onClose={close} />}
      {open.value === 'retire' && <RetireDialog rows={chosen} onDone={done} onClose={close} />}
    </div>
  )
}

interface RowProps {
  row: SeatRow
  selected: boolean
  onSelect: (on: boolean) => void
  onEdit: () => void
}

function Row({ row, selected, onSelect, onEdit }: RowProps): JSX.Element {
  const text = ts().seats.list
  return (
    <tr>
      <td>
        <label class="target">
          <input
            type="checkbox"
            aria-label={row.label}
            checked={selected}
            onChange={(e) => onSelect(e.currentTarget.checked)}
          />
        </label>
      </td>
      <th scope="row">
        {row.label}
        {row.desk !== '' && <small> · {row.desk}</small>}
      </th>
      <td>
        {amenities
          .filter((a) => row.amenities.includes(a))
          .map((a) => (
            <span class="tag" key={a}>
              {t().common.amenity[a]}
            </span>
          ))}
      </td>
      <td>
        {row.outOfService ? <span class="tag warn">{text.outOfService}</span> : text.inService}
        {row.x === undefined && <small> · {text.withoutPlace}</small>}
      </td>
      <td>
        <button class="link" type="button" aria-label={text.editOne(row.label)} onClick={onEdit}>
          {text.edit}
        </button>
      </td>
    </tr>
  )
}

function groups(rows: readonly SeatRow[]): [string, SeatRow[]][] {
  const found = new Map<string, SeatRow[]>()
  for (const r of rows) {
    const group = found.get(r.area)
    if (group === undefined) found.set(r.area, [r])
    else group.push(r)
  }
  return [...found]
}
