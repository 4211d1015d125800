import { useSignal } from '@preact/signals'
import type { JSX } from 'preact'
import { api, call, type Schema } from '../../../api/client.ts'
import { ts } from '../../../i18n/text.ts'
import { weekdayName } from '../../../i18n/time.ts'
import { Button } from '../../../ui/action.tsx'
import { ImpactDialog } from '../../../ui/impact.tsx'
import { notify } from '../../../ui/notice.tsx'
import { useUnsaved } from '../../../ui/unsaved.ts'
import { loadBranches } from '../branch.ts'
import { apiSpan, complete, formSpan, SpanList, type Span } from './spans.tsx'

const weekdays = [1, 2, 3, 4, 5, 6, 7]

function weekOf(hours: readonly Schema<'OpeningHours'>[]): Span[][] {
  return weekdays.map((d) => hours.filter((h) => h.weekday === d).map(formSpan))
}

function hoursOf(week: readonly Span[][]): Schema<'OpeningHours'>[] {
  return week.flatMap((spans, i) => spans.map((s) => ({ weekday: i + 1, ...apiSpan(s) })))
}

/** Week edits the weekly opening hours of a branch. A change is saved after the preview of its impact. */
export function Week({ branch }: { branch: Schema<'BranchSettings'> }): JSX.Element {
  const text = ts().hours
  const stored = weekOf(branch.hours)
  const week = useSignal(stored)
  const always = useSignal(branch.hours.length === 0)
  const saving = useSignal(false)
  const fault = useSignal('')
  const changed =
    always.value !== (branch.hours.length === 0) ||
    (!always.value && JSON.stringify(week.value) !== JSON.stringify(stored))
  useUnsaved(changed, ts().admin.leave)
  const set = (i: number, spans: Span[]): void => {
    week.value = week.value.map((old, j) => (i === j ? spans : old))
  }

  function check(): void {
    fault.value = ''
    if (!always.value && !week.value.every(complete)) fault.value = text.incomplete
    else if (!always.value && week.value.every((s) => s.length === 0)) fault.value = text.neverOpen
    else saving.value = true
  }

  return (
    <section class="card" aria-labelledby="week-title">
      <h2 id="week-title">{text.week}</h2>
      <form
        noValidate
        onSubmit={(e) => {
          e.preventDefault()
          check()
        }}
      >
        <label class="choice">
          <input
            type="checkbox"
            checked={always.value}
            onChange={(e) => (always.value = e.currentTarget.checked)}
          />
          {text.always}
        </label>
        {!always.value && (
          <table class="week">
            <caption class="visually-hidden">{text.week}</caption>
            <tbody>
              {week.value.map((spans, i) => {
                const name = weekdayName(i + 1)
                return (
                  <tr key={i}>
                    <th scope="row">{name}</th>
                    <td>
                      <SpanList of={name} spans={spans} onChange={(s) => set(i, s)}>
                        {i > 0 && (
                          <Button
                            label={text.asAboveLabel(name)}
                            onClick={() => set(i, week.value[i - 1] ?? [])}
                          >
                            {text.asAbove}
                          </Button>
                        )}
                      </SpanList>
                    </td>
                  </tr>
                )
              })}
            </tbody>
          </table>
        )}
        {fault.value !== '' && (
          <p class="fault" role="alert">
            {fault.value}
          </p>
        )}
        <div class="row end">
          <Button
            disabled={!changed}
            onClick={() => {
              week.value = stored
              always.value = branch.hours.length === 0
              fault.value = ''
            }}
          >
            {text.undo}
          </Button>
          <Button type="submit" kind="main" disabled={!changed}>
            {text.preview}
          </Button>
        </div>
      </form>
      {saving.value && (
        <ImpactDialog
          title={text.weekTitle(branch.name)}
          zone={branch.timezone}
          confirm={text.saveHours}
          send={async (change) => {
            const { impact } = await call(
              api.POST('/v1/admin/branches/{branch}/hours', {
                params: { path: { branch: branch.code } },
                body: {
                  ...(always.value ? { alwaysOpen: true } : { hours: hoursOf(week.value) }),
                  ...change,
                },
              }),
            )
            return impact
          }}
          onClose={() => (saving.value = false)}
          onDone={() => {
            saving.value = false
            void loadBranches().finally(() => notify(text.saved))
          }}
        />
      )}
    </section>
  )
}
