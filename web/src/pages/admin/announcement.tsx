import { useSignal } from '@preact/signals'
import type { JSX } from 'preact'
import { api, call, type Schema } from '../../api/client.ts'
import { languages, ts, type Language } from '../../i18n/text.ts'
import { addDays, dateOf, dayAndClock } from '../../i18n/time.ts'
import { serverNow } from '../../state/clock.ts'
import { Button, useAction } from '../../ui/action.tsx'
import { ReasonField } from '../../ui/impact.tsx'
import { filled, NoteFields, type Note } from '../../ui/note.tsx'
import { notify } from '../../ui/notice.tsx'
import { Fault } from '../../ui/problem.tsx'
import { useUnsaved } from '../../ui/unsaved.ts'
import { branch, loadBranches } from './branch.ts'
import { momentOf, MomentField, timeOf, type Moment } from './parts.tsx'

/** Section is the announcement of a branch: the present one, and the form for another one. */
export function Section(): JSX.Element | null {
  const b = branch.value
  return b === undefined ? null : <Announcement key={JSON.stringify(b.announcement)} branch={b} />
}

function Announcement({ branch: b }: { branch: Schema<'BranchSettings'> }): JSX.Element {
  const text = ts().admin.announce
  const zone = b.timezone
  const note = useSignal<Note>(b.announcement ?? {})
  const until = useSignal<Moment | undefined>(
    b.announcedUntil === undefined ? undefined : momentOf(b.announcedUntil, zone),
  )
  const reason = useSignal('')
  const fault = useSignal('')
  const action = useAction()
  const removal = useAction()
  const present = Object.keys(b.announcement ?? {}).length > 0
  const texts = filled(note.value)
  useUnsaved(
    Object.keys(languages).some((l) => (texts[l] ?? '') !== (b.announcement?.[l] ?? '')),
    ts().admin.leave,
  )

  async function send(remove: boolean): Promise<void> {
    fault.value = ''
    const end = until.value === undefined ? undefined : timeOf(until.value, zone)
    if (!remove && Object.keys(texts).length === 0) fault.value = text.noText
    else if (!remove && until.value !== undefined && end === undefined) fault.value = ts().hours.noTime
    if (fault.value !== '') return
    const done = await (remove ? removal : action).run(async () => {
      await call(
        api.POST('/v1/admin/branches/{branch}/announcement', {
          params: { path: { branch: b.code } },
          body: {
            ...(remove ? {} : { text: texts, ...(end === undefined ? {} : { until: end }) }),
            reason: reason.value.trim(),
          },
        }),
      )
    })
    if (!done) return
    await loadBranches() // before the notice: until then, the page would ask about unsaved changes
    notify(remove ? text.removed : text.saved)
  }

  return (
    <>
      <section class="card" aria-labelledby="present-title">
        <h2 id="present-title">{text.present}</h2>
        {present ? (
          <>
            <Preview texts={b.announcement ?? {}} />
            <p>
              <small>
                {b.announcedUntil === undefined
                  ? text.stays
                  : text.until(dayAndClock(b.announcedUntil, zone))}
              </small>
            </p>
            <Fault problem={removal.problem.value} zone={zone} />
            <Button kind="danger" busy={removal.busy.value} onClick={() => void send(true)}>
              {text.remove}
            </Button>
          </>
        ) : (
          <p>{text.none}</p>
        )}
      </section>
      <form
        class="card"
        noValidate
        onSubmit={(e) => {
          e.preventDefault()
          void send(false)
        }}
      >
        <h2>{present ? text.change : text.make}</h2>
        <NoteFields
          legend={text.text}
          hint={text.textHint}
          value={note.value}
          onChange={(n) => (note.value = n)}
        />
        <label class="choice">
          <input
            type="checkbox"
            checked={until.value !== undefined}
            onChange={(e) => {
              const tomorrow = addDays(dateOf(serverNow(), zone), 1)
              until.value = e.currentTarget.checked ? { date: tomorrow, time: '18:00' } : undefined
            }}
          />
          {text.hasEnd}
        </label>
        {until.value !== undefined && (
          <MomentField label={text.end} value={until.value} onChange={(m) => (until.value = m)} />
        )}
        <ReasonField value={reason.value} onChange={(r) => (reason.value = r)} />
        {Object.keys(texts).length > 0 && (
          <>
            <h3>{text.preview}</h3>
            <Preview texts={texts} />
          </>
        )}
        {fault.value !== '' && (
          <p class="fault" role="alert">
            {fault.value}
          </p>
        )}
        <Fault problem={action.problem.value} zone={zone} />
        <div class="row end">
          <Button type="submit" kind="main" busy={action.busy.value}>
            {text.save}
          </Button>
        </div>
      </form>
    </>
  )
}

/** Preview shows an announcement as students see it, in each of its languages. */
function Preview({ texts }: { texts: Note }): JSX.Element {
  return (
    <ul class="plain-list announcement-preview">
      {Object.entries(texts).map(([l, text]) => (
        <li key={l}>
          <small>{languages[l as Language] ?? l}</small>
          <p class="banner" lang={l}>
            {text}
          </p>
        </li>
      ))}
    </ul>
  )
}
