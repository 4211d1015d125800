import { useSignal } from '@preact/signals'
import type { JSX } from 'preact'
import { api, call, type Schema } from '../../api/client.ts'
import { t, ts } from '../../i18n/text.ts'
import { Button, useAction } from '../../ui/action.tsx'
import { FormDialog } from '../../ui/form-dialog.tsx'
import { ReasonField } from '../../ui/impact.tsx'
import { notify } from '../../ui/notice.tsx'
import { Fault } from '../../ui/problem.tsx'
import { branch, branches } from './branch.ts'
import { dateText, focusTitle, useLoaded, Wait } from './parts.tsx'
import { PolicyForm } from './policies/form.tsx'
import { allRules, groups, isSet, ruleText, type Rules } from './policies/rules.tsx'
import { mayLibrary, scopeName } from './policies/scope.ts'

type Policy = Schema<'Policy'>

/** Section lists the policies that hold in a branch, and edits them. */
export function Section(): JSX.Element | null {
  const b = branch.value
  return b === undefined ? null : <Policies branch={b} />
}

function Policies({ branch: b }: { branch: Schema<'BranchSettings'> }): JSX.Element {
  const text = ts().policies
  const loaded = useLoaded(() => call(api.GET('/v1/admin/policies')))
  const screens = useLoaded(() => branchesWithScreen(branches.value.map((one) => one.code)))
  const editing = useSignal<{ policy: Policy | undefined } | undefined>(undefined)
  const removing = useSignal<Policy | undefined>(undefined)
  return (
    <Wait of={loaded}>
      {({ policies, defaults }) => {
        const here = policies.filter((p) => !p.branch || p.branch === b.code)
        return (
          <>
            {editing.value === undefined ? (
              <p>
                <Button kind="main" onClick={() => (editing.value = { policy: undefined })}>
                  {text.create}
                </Button>
              </p>
            ) : (
              <PolicyForm
                key={JSON.stringify(editing.value.policy)}
                policy={editing.value.policy}
                branch={b.code}
                defaults={defaults}
                screens={screens.data.value ?? new Set(branches.value.map((one) => one.code))}
                onCancel={() => {
                  editing.value = undefined
                  focusTitle()
                }}
                onDone={() => {
                  editing.value = undefined
                  focusTitle()
                  void loaded.reload()
                }}
              />
            )}
            <p>
              <small>{text.order}</small>
            </p>
            {here.length === 0 && <p>{text.none}</p>}
            <ul class="plain-list">
              {here.map((p) => (
                <li key={JSON.stringify({ ...p, rules: 0 })} class="card">
                  <h2>{scopeName(p)}</h2>
                  <p>{datesText(p)}</p>
                  <RuleList rules={p.rules} defaults={defaults} />
                  {(p.branch || mayLibrary()) && (
                    <div class="row end">
                      <Button
                        label={`${ts().hours.change}: ${scopeName(p)}`}
                        onClick={() => (editing.value = { policy: p })}
                      >
                        {ts().hours.change}
                      </Button>
                      <Button
                        kind="danger"
                        label={`${ts().hours.remove}: ${scopeName(p)}`}
                        onClick={() => (removing.value = p)}
                      >
                        {ts().hours.remove}
                      </Button>
                    </div>
                  )}
                </li>
              ))}
            </ul>
            <details class="card">
              <summary>{text.defaults}</summary>
              <p>
                <small>{text.defaultsHint}</small>
              </p>
              <dl class="rules">
                {allRules.map((r) => (
                  <div key={r.name}>
                    <dt>{text.rule[r.name]}</dt>
                    <dd>{ruleText(defaults, r)}</dd>
                  </div>
                ))}
              </dl>
            </details>
            {removing.value !== undefined && (
              <RemovePolicy
                policy={removing.value}
                onClose={() => {
                  removing.value = undefined
                  void loaded.reload()
                }}
              />
            )}
          </>
        )
      }}
    </Wait>
  )
}

/** RuleList shows the rules that a policy sets, each with the default beside it. */
export function RuleList({
  rules,
  defaults,
}: {
  rules: Rules | undefined
  defaults: Rules | undefined
}): JSX.Element {
  const text = ts().policies
  return (
    <dl class="rules">
      {groups
        .flatMap((g) => g.rules)
        .filter((r) => isSet(rules, r))
        .map((r) => (
          <div key={r.name}>
            <dt>{text.rule[r.name]}</dt>
            <dd>
              <strong>{ruleText(rules, r)}</strong> <small>{text.default(ruleText(defaults, r))}</small>
            </dd>
          </div>
        ))}
    </dl>
  )
}

function datesText(p: Policy): string {
  const text = ts().policies
  if (p.firstDay && p.lastDay) return t().common.span(dateText(p.firstDay), dateText(p.lastDay))
  if (p.firstDay) return text.since(dateText(p.firstDay))
  return p.lastDay ? t().common.until(dateText(p.lastDay)) : text.always
}

function RemovePolicy({ policy, onClose }: { policy: Policy; onClose: () => void }): JSX.Element {
  const text = ts().policies
  const action = useAction()
  const reason = useSignal('')
  return (
    <FormDialog
      title={text.removeTitle}
      submit={ts().hours.remove}
      kind="danger"
      busy={action.busy.value}
      onSubmit={() => {
        const { rules: _rules, ...scope } = policy
        void action
          .run(async () => {
            await call(
              api.POST('/v1/admin/policies', { body: { policy: scope, reason: reason.value.trim() } }),
            )
          })
          .then((done) => {
            if (!done) return
            notify(text.removed)
            onClose()
          })
      }}
      onClose={onClose}
    >
      <p>
        <strong>{scopeName(policy)}</strong> ({datesText(policy)})
      </p>
      <p>{text.removeText}</p>
      <ReasonField value={reason.value} onChange={(r) => (reason.value = r)} />
      <Fault problem={action.problem.value} />
    </FormDialog>
  )
}

/** branchesWithScreen returns the codes of the branches that have a screen that is on. */
async function branchesWithScreen(codes: readonly string[]): Promise<ReadonlySet<string>> {
  const answers = await Promise.all(
    codes.map(async (code) => {
      const { screens } = await call(
        api.GET('/v1/admin/branches/{branch}/screens', { params: { path: { branch: code } } }),
      )
      return screens.some((s) => !s.off)
    }),
  )
  return new Set(codes.filter((_, i) => answers[i]))
}
