import { useComputed, useSignal } from '@preact/signals'
import { useEffect } from 'preact/hooks'
import type { JSX } from 'preact'
import { api, call, type Schema } from '../../api/client.ts'
import { t, ts } from '../../i18n/text.ts'
import { number } from '../../i18n/time.ts'
import { natural } from '../../map/layout.ts'
import { Button, useAction } from '../../ui/action.tsx'
import { announce } from '../../ui/announce.tsx'
import { Field } from '../../ui/field.tsx'
import { Fault } from '../../ui/problem.tsx'
import { branch } from './branch.ts'
import { loadSeats, type SeatRow } from './seats/data.ts'

type Label = Schema<'SeatLabel'>

const perSheet = 24 // 3 columns of 8
const perCall = 240 // the ids of these seats fit into an address
const quiet = 4 // modules of empty margin that a QR code needs

/** Section makes sheets of labels with QR codes, and prints them. */
export function Section(): JSX.Element {
  const text = ts().seats.label
  const code = branch.value?.code ?? ''
  const load = useAction()
  const make = useAction()
  const rows = useSignal<readonly SeatRow[]>([])
  const area = useSignal('')
  const wanted = useSignal('')
  const labels = useSignal<readonly Label[]>([])

  useEffect(
    () =>
      void load.run(async () => {
        rows.value = (await loadSeats(code)).rows
      }),
    [code],
  )
  const chosen = useComputed(() => {
    const words = wanted.value
      .toLowerCase()
      .split(/[\s,;]+/u)
      .filter((w) => w !== '')
    return rows.value.filter(
      (r) =>
        (area.value === '' || r.area === area.value) &&
        (words.length === 0 || words.some((w) => r.label.toLowerCase().startsWith(w))),
    )
  })
  const n = chosen.value.length
  const sheets: Label[][] = []
  for (let i = 0; i < labels.value.length; i += perSheet) sheets.push(labels.value.slice(i, i + perSheet))

  function start(): void {
    labels.value = []
    void make.run(async () => {
      const found: Label[] = []
      const ids = chosen.value.map((r) => r.id)
      // The server accepts addresses in upper case, and their QR codes have fewer and larger modules.
      const link = (location.origin + '/s/').toUpperCase()
      for (let i = 0; i < ids.length; i += perCall) {
        const query = { branch: code, seatIds: ids.slice(i, i + perCall), itemsOnly: true, link }
        const answer = await call(api.GET('/v1/admin/labels', { params: { query } }))
        if (typeof answer !== 'string') found.push(...answer.items) // a text is the page of other clients
      }
      labels.value = found.sort((a, b) => natural(a.area, b.area) || natural(a.label, b.label))
      announce(text.ready(found.length, Math.ceil(found.length / perSheet)))
    })
  }

  return (
    <div class="seats-page">
      <section class="card no-print">
        <p>{text.intro}</p>
        <div class="form-pair">
          <Field label={text.area}>
            {(a) => (
              <select {...a} value={area.value} onChange={(e) => (area.value = e.currentTarget.value)}>
                <option value="">{text.allAreas}</option>
                {[...new Set(rows.value.map((r) => r.area))].map((name) => (
                  <option key={name} value={name}>
                    {name}
                  </option>
                ))}
              </select>
            )}
          </Field>
          <Field label={text.seats} hint={text.seatsHint} optional>
            {(a) => (
              <input {...a} value={wanted.value} onInput={(e) => (wanted.value = e.currentTarget.value)} />
            )}
          </Field>
        </div>
        <Fault problem={load.problem.value} />
        <div class="row">
          <Button kind="main" busy={make.busy.value} disabled={n === 0} onClick={start}>
            {text.make(n)}
          </Button>
          {sheets.length > 0 && <Button onClick={() => print()}>{text.print(sheets.length)}</Button>}
        </div>
        {make.problem.value?.reason === 'PRESENCE_OFF' ? (
          <div class="fault" role="alert">
            <p>{text.off}</p>
            <p>
              {text.offOperator} <code>PRESENCE_SECRET</code>
            </p>
          </div>
        ) : (
          <Fault problem={make.problem.value} />
        )}
        {sheets.length > 0 && (
          <p>
            <small>{text.printHint}</small>
          </p>
        )}
      </section>
      {sheets.length > 0 && (
        <div class="scroll label-sheets" tabIndex={0} role="group" aria-label={text.preview}>
          {sheets.map((sheet, i) => (
            <section
              class="label-sheet"
              key={i}
              aria-label={text.sheet(number(i + 1), number(sheets.length))}
            >
              {sheet.map((l) => (
                <LabelView key={l.seatId} label={l} />
              ))}
            </section>
          ))}
        </div>
      )}
      {load.busy.value && (
        <p class="loading" role="status">
          {t().common.loading}
        </p>
      )}
    </div>
  )
}

function LabelView({ label }: { label: Label }): JSX.Element {
  const side = label.qrSize + 2 * quiet
  return (
    <div class="label">
      <svg
        viewBox={`${-quiet} ${-quiet} ${side} ${side}`}
        shape-rendering="crispEdges"
        role="img"
        aria-label={ts().seats.label.code(label.label)}
        data-code={label.code}
      >
        <rect x={-quiet} y={-quiet} width={side} height={side} fill="#fff" />
        <path d={label.qrPath} fill="#000" />
      </svg>
      <div>
        <strong>{label.label}</strong>
        <span>{label.area}</span>
        <span>{label.branchName}</span>
      </div>
    </div>
  )
}
