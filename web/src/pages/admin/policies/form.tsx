import { useSignal } from '@preact/signals'
import { useEffect, useRef } from 'preact/hooks'
import type { JSX } from 'preact'
import { api, call, type Schema } from '../../../api/client.ts'
import type { Problem } from '../../../api/problem.ts'
import { t, ts } from '../../../i18n/text.ts'
import { Link } from '../../../router.tsx'
import { Button, useAction } from '../../../ui/action.tsx'
import { Field } from '../../../ui/field.tsx'
import { ReasonField } from '../../../ui/impact.tsx'
import { notify } from '../../../ui/notice.tsx'
import { Fault } from '../../../ui/problem.tsx'
import { useEdits } from '../../../ui/unsaved.ts'
import { adminPath, branches } from '../branch.ts'
import {
  allRules,
  apiValue,
  durationText,
  formValue,
  groups,
  isSet,
  RuleInput,
  ruleText,
  startValue,
  type Rule,
  type Rules,
} from './rules.tsx'
import { mayLibrary, scopeName } from './scope.ts'

type Policy = Schema<'Policy'>

interface PolicyFormProps {
  /** policy is the one to change; undefined: a new one. Its scope and its dates identify it. */
  policy: Policy | undefined
  branch: string
  defaults: Rules | undefined
  /** screens are the codes of the branches that have a screen that is on. */
  screens: ReadonlySet<string>
  onCancel: () => void
  onDone: () => void
}

type Scope = Required<Omit<Policy, 'rules'>>

/** PolicyForm edits the rules of a policy, and the scope of a new one. */
export function PolicyForm(props: PolicyFormProps): JSX.Element {
  const text = ts().policies
  const { policy, defaults } = props
  const scope = useSignal<Scope>({
    branch: props.branch,
    area: '',
    group: '',
    firstDay: '',
    lastDay: '',
    ...scopeOf(policy),
  })
  const values = useSignal<ReadonlyMap<string, string>>(
    new Map(
      allRules.filter((r) => isSet(policy?.rules, r)).map((r) => [r.name, formValue(policy?.rules, r)]),
    ),
  )
  const reason = useSignal('')
  const faults = useSignal<ReadonlyMap<string, string>>(new Map())
  const action = useAction()
  const form = useRef<HTMLFormElement>(null)
  const heading = useRef<HTMLHeadingElement>(null)
  const edits = useEdits(ts().admin.leave)
  useEffect(() => heading.current?.focus(), [])

  function set(rule: Rule, value: string | undefined): void {
    const next = new Map(values.value)
    if (value === undefined) next.delete(rule.name)
    else next.set(rule.name, value)
    values.value = next
  }

  async function save(): Promise<void> {
    const rules: Record<string, unknown> = {}
    const found = new Map<string, string>()
    for (const rule of allRules) {
      const value = values.value.get(rule.name)
      if (value === undefined) continue
      const converted = apiValue(rule, value)
      if (converted === undefined) found.set(rule.name, text.badValue)
      else rules[rule.name] = converted
    }
    if (values.value.size === 0) found.set('', text.noRules)
    faults.value = found
    if (found.size > 0) {
      showFault()
      return
    }
    const done = await action.run(async () => {
      await call(
        api.POST('/v1/admin/policies', {
          body: { policy: { ...scope.value, rules: rules as Rules }, reason: reason.value.trim() },
        }),
      )
    })
    if (!done) {
      showFault()
      return
    }
    edits.release()
    notify(text.saved)
    props.onDone()
  }

  /** showFault goes to the first marked field: the form is longer than a window. */
  function showFault(): void {
    requestAnimationFrame(() => form.current?.querySelector<HTMLElement>('[aria-invalid]')?.focus())
  }

  const needsScreen = values.value.get('checkIn')?.endsWith('SCREEN') === true
  const without = branches.value.filter(
    (b) => (scope.value.branch === '' || scope.value.branch === b.code) && !props.screens.has(b.code),
  )
  return (
    <form
      ref={form}
      class="card policy-form"
      noValidate
      onInput={edits.edit}
      onSubmit={(e) => {
        e.preventDefault()
        void save()
      }}
    >
      <h2 ref={heading} tabIndex={-1}>
        {policy === undefined ? text.create : text.edit}
      </h2>
      {policy === undefined ? (
        <ScopeFields scope={scope.value} onChange={(s) => (scope.value = s)} problem={action.problem.value} />
      ) : (
        <p>
          <strong>{scopeName(policy)}</strong>
        </p>
      )}
      {groups.map((g) => (
        <fieldset key={g.name}>
          <legend>{text.group[g.name]}</legend>
          {g.rules.map((rule) => (
            <RuleRow
              key={rule.name}
              rule={rule}
              value={values.value.get(rule.name)}
              defaults={defaults}
              fault={faults.value.get(rule.name) ?? faultOfRule(action.problem.value, rule)}
              onChange={(v) => set(rule, v)}
            />
          ))}
        </fieldset>
      ))}
      {needsScreen && without.length > 0 && (
        <p class="banner" role="status">
          {text.noScreen(without.map((b) => b.name).join(', '))}{' '}
          <Link href={adminPath('screens')}>{ts().seats.screens}</Link>
        </p>
      )}
      <ReasonField value={reason.value} onChange={(r) => (reason.value = r)} />
      {faults.value.has('') && (
        <p class="fault" role="alert">
          {faults.value.get('')}
        </p>
      )}
      {faults.value.size > 0 && !faults.value.has('') && (
        <p class="fault" role="alert">
          {t().errors.INVALID_FIELDS}
        </p>
      )}
      <Fault
        problem={action.problem.value}
        marked={(pointer) => allRules.some((r) => values.value.has(r.name) && isOfRule(pointer, r))}
      />
      <div class="row end">
        <Button onClick={props.onCancel}>{t().common.cancel}</Button>
        <Button type="submit" kind="main" busy={action.busy.value}>
          {text.save}
        </Button>
      </div>
    </form>
  )
}

function scopeOf(p: Policy | undefined): Partial<Scope> {
  if (p === undefined) return {}
  const { rules: _rules, ...scope } = p
  return scope
}

/** isOfRule tells whether a pointer of the API names a rule, or an element of its list. */
function isOfRule(pointer: string, { name }: Rule): boolean {
  return new RegExp(`[./]${name}(\\[|$)`).test(pointer)
}

/** faultOfRule returns the fault of a rule in the answer of the API. */
function faultOfRule(problem: Problem | undefined, rule: Rule): string | undefined {
  const detail = problem?.errors.find((e) => isOfRule(e.pointer, rule))?.detail
  // The API writes times as 168h0m0s.
  const bounds = detail === undefined ? null : /from (\d+[hms]\S*) to (\d+[hms]\S*)$/.exec(detail)
  if (bounds === null) return detail
  return ts().policies.bounds(goDuration(bounds[1] ?? ''), goDuration(bounds[2] ?? ''))
}

/** goDuration returns a time that Go wrote, such as 1h30m0s, in words. */
function goDuration(text: string): string {
  const units: Record<string, number> = { h: 3600, m: 60, s: 1 }
  let n = 0
  for (const [, amount, unit] of text.matchAll(/(\d+)([hms])/g))
    n += Number(amount) * (units[unit ?? ''] ?? 0)
  return durationText(n)
}

interface RuleRowProps {
  rule: Rule
  value: string | undefined
  defaults: Rules | undefined
  fault: string | undefined
  onChange: (value: string | undefined) => void
}

function RuleRow({ rule, value, defaults, fault, onChange }: RuleRowProps): JSX.Element {
  const text = ts().policies
  const name = text.rule[rule.name]
  return (
    <div class="rule">
      <label class="choice">
        <input
          type="checkbox"
          checked={value !== undefined}
          onChange={(e) => onChange(e.currentTarget.checked ? startValue(defaults, rule) : undefined)}
        />
        <span>
          {name}
          <br />
          <small>{text.default(ruleText(defaults, rule))}</small>
        </span>
      </label>
      {value !== undefined && (
        <Field label={text.value(name)} hint={text.hint[rule.name as keyof typeof text.hint]} fault={fault}>
          {(a) => <RuleInput rule={rule} value={value} onChange={onChange} attributes={a} />}
        </Field>
      )}
    </div>
  )
}

interface ScopeFieldsProps {
  scope: Scope
  onChange: (s: Scope) => void
  problem: Problem | undefined
}

function ScopeFields({ scope, onChange, problem }: ScopeFieldsProps): JSX.Element {
  const text = ts().policies
  const areas = branches.value.find((b) => b.code === scope.branch)?.areas ?? []
  const fault = (field: string): string | undefined =>
    problem?.errors.find((e) => e.pointer.endsWith(field))?.detail
  return (
    <fieldset>
      <legend>{text.scope}</legend>
      <div class="scope">
        <Field label={ts().admin.branch} fault={fault('branch')}>
          {(a) => (
            <select
              {...a}
              value={scope.branch}
              onChange={(e) => onChange({ ...scope, branch: e.currentTarget.value, area: '' })}
            >
              {mayLibrary() && <option value="">{text.library}</option>}
              {branches.value.map((b) => (
                <option key={b.code} value={b.code}>
                  {b.name}
                </option>
              ))}
            </select>
          )}
        </Field>
        {scope.branch !== '' && (
          <Field label={ts().hours.area} fault={fault('area')}>
            {(a) => (
              <select
                {...a}
                value={scope.area}
                onChange={(e) => onChange({ ...scope, area: e.currentTarget.value })}
              >
                <option value="">{text.allAreas}</option>
                {areas.map((one) => (
                  <option key={one.name}>{one.name}</option>
                ))}
              </select>
            )}
          </Field>
        )}
        <Field label={text.userGroup} hint={text.userGroupHint} fault={fault('group')} optional>
          {(a) => (
            <input
              {...a}
              maxLength={64}
              value={scope.group}
              onInput={(e) => onChange({ ...scope, group: e.currentTarget.value })}
            />
          )}
        </Field>
        <Field label={ts().hours.firstDay} fault={fault('firstDay')} optional>
          {(a) => (
            <input
              {...a}
              type="date"
              value={scope.firstDay}
              onInput={(e) => onChange({ ...scope, firstDay: e.currentTarget.value })}
            />
          )}
        </Field>
        <Field label={ts().hours.lastDay} fault={fault('lastDay')} optional>
          {(a) => (
            <input
              {...a}
              type="date"
              value={scope.lastDay}
              onInput={(e) => onChange({ ...scope, lastDay: e.currentTarget.value })}
            />
          )}
        </Field>
      </div>
    </fieldset>
  )
}
