import { useSignal } from '@preact/signals'
import type { JSX } from 'preact'
import { api, call, type Schema } from '../../../api/client.ts'
import { ts } from '../../../i18n/text.ts'
import { FormDialog } from '../../../ui/form-dialog.tsx'
import { ImpactDialog } from '../../../ui/impact.tsx'
import { filled, NoteFields, type Note } from '../../../ui/note.tsx'
import { notify } from '../../../ui/notice.tsx'
import { momentOf, MomentField, spanText, timeOf, type Moment } from '../parts.tsx'

interface ChangeProps {
  closure: Schema<'Closure'>
  zone: string
  onClose: () => void
}

type Update = Schema<'UpdateClosureBody'>

/** ChangeClosure moves a closure or changes its text. Only what differs is sent. */
export function ChangeClosure({ closure: c, zone, onClose }: ChangeProps): JSX.Element {
  const text = ts().hours
  const was = {
    start: momentOf(c.startTime ?? 0, zone),
    end: c.endTime === undefined ? undefined : momentOf(c.endTime, zone),
  }
  const start = useSignal<Moment>(was.start)
  const end = useSignal<Moment | undefined>(was.end)
  const note = useSignal<Note>(c.note ?? {})
  const fault = useSignal('')
  const update = useSignal<Update | undefined>(undefined)

  function check(): void {
    const from = timeOf(start.value, zone)
    const to = end.value === undefined ? undefined : timeOf(end.value, zone)
    fault.value = ''
    if (from === undefined || (end.value !== undefined && to === undefined)) {
      fault.value = text.noTime
      return
    }
    if (to !== undefined && Date.parse(to) <= Date.parse(from)) {
      fault.value = text.endBeforeStart
      return
    }
    const texts = filled(note.value)
    const same = (a: Moment | undefined, b: Moment | undefined): boolean =>
      JSON.stringify(a) === JSON.stringify(b)
    // Minutes are all that the form has: a start that the user left alone keeps its seconds.
    update.value = {
      ...(same(start.value, was.start) ? {} : { startTime: from }),
      ...(same(end.value, was.end) ? {} : to === undefined ? { noEnd: true } : { endTime: to }),
      ...(JSON.stringify(texts) === JSON.stringify(filled(c.note ?? {})) ? {} : { note: texts }),
    }
  }

  if (update.value !== undefined) {
    return (
      <ImpactDialog
        title={text.changeClosure}
        zone={zone}
        confirm={text.saveClosure}
        action={c.onBookings === 'BOOKING_ACTION_CANCEL' ? 'BOOKING_ACTION_CANCEL' : 'BOOKING_ACTION_KEEP'}
        ownNote
        send={({ validateOnly, expectedReservations, reason }) =>
          send(c.id, { ...update.value, validateOnly, expectedReservations, reason })
        }
        onClose={() => (update.value = undefined)}
        onDone={() => {
          notify(text.closureChanged)
          onClose()
        }}
      >
        <p>{spanText(timeOf(start.value, zone), end.value && timeOf(end.value, zone), zone)}</p>
      </ImpactDialog>
    )
  }
  return (
    <FormDialog
      title={text.changeClosure}
      submit={text.preview}
      noValidate
      onSubmit={check}
      onClose={onClose}
    >
      <MomentField label={text.from} value={start.value} onChange={(m) => (start.value = m)} />
      <label class="choice">
        <input
          type="checkbox"
          checked={end.value === undefined}
          onChange={(e) => (end.value = e.currentTarget.checked ? undefined : (was.end ?? start.value))}
        />
        {text.untilLifted}
      </label>
      {end.value !== undefined && (
        <MomentField label={text.to} value={end.value} onChange={(m) => (end.value = m)} />
      )}
      <NoteFields legend={ts().admin.note.legend} value={note.value} onChange={(n) => (note.value = n)} />
      {fault.value !== '' && (
        <p class="fault" role="alert">
          {fault.value}
        </p>
      )}
    </FormDialog>
  )
}

/** LiftClosure ends a closure now. */
export function LiftClosure({ closure: c, zone, onClose }: ChangeProps): JSX.Element {
  const text = ts().hours
  return (
    <ImpactDialog
      title={text.liftTitle}
      zone={zone}
      confirm={text.lift}
      action="BOOKING_ACTION_KEEP"
      ownNote
      withoutImpact
      send={({ validateOnly, reason }) => send(c.id, { lift: true, validateOnly, reason })}
      onClose={onClose}
      onDone={() => {
        notify(text.lifted)
        onClose()
      }}
    >
      <p>{spanText(c.startTime, c.endTime, zone)}</p>
      <ul>
        <li>{text.liftFrees}</li>
        <li>{text.liftKeeps}</li>
      </ul>
    </ImpactDialog>
  )
}

async function send(closureId: string, body: Update): Promise<Schema<'Impact'> | undefined> {
  const path = { closureId }
  return (await call(api.POST('/v1/admin/closures/{closureId}:update', { params: { path }, body }))).impact
}
