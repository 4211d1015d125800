import { useSignal } from '@preact/signals'
import type { JSX } from 'preact'
import type { Schema } from '../../../api/client.ts'
import { t, ts } from '../../../i18n/text.ts'
import { number } from '../../../i18n/time.ts'

export type Rules = Schema<'PolicyRules'>
export type RuleName = keyof Rules

type Kind = 'bool' | 'duration' | 'minutes' | 'count' | 'days' | 'dayList' | 'time' | 'checkIn'

/** Rule says how a rule of a policy is shown and edited. */
export interface Rule {
  name: RuleName
  kind: Kind
  /** first is the value of the form when staff set the rule and the library has no default. */
  first: string
  /** unset is the number of days that the server takes when no policy sets the rule. */
  unset?: number
}

/** groups are the rules by subject, in the order in which they are shown. */
export const groups: { name: 'booking' | 'limits' | 'presence' | 'strikes'; rules: Rule[] }[] = [
  {
    name: 'booking',
    rules: [
      { name: 'mayBook', kind: 'bool', first: 'true' },
      { name: 'minReservation', kind: 'duration', first: '900' },
      { name: 'maxReservation', kind: 'duration', first: '14400' },
      { name: 'step', kind: 'duration', first: '900' },
      { name: 'maxAhead', kind: 'duration', first: '1209600' },
      { name: 'opensAt', kind: 'time', first: '08:00' },
      { name: 'latestCancellation', kind: 'duration', first: '0' },
    ],
  },
  {
    name: 'limits',
    rules: [
      { name: 'maxUpcoming', kind: 'count', first: '5' },
      { name: 'maxReservationsPerDay', kind: 'count', first: '2' },
      { name: 'maxReservationsPerWeek', kind: 'count', first: '10' },
      { name: 'maxMinutesPerDay', kind: 'minutes', first: '28800' },
      { name: 'maxMinutesPerWeek', kind: 'minutes', first: '144000' },
    ],
  },
  {
    name: 'presence',
    rules: [
      { name: 'checkIn', kind: 'checkIn', first: 'CHECK_IN_RULE_SCREEN' },
      { name: 'checkInLead', kind: 'duration', first: '900' },
      { name: 'grace', kind: 'duration', first: '900' },
    ],
  },
  {
    name: 'strikes',
    rules: [
      { name: 'strikeLimit', kind: 'count', first: '3' },
      { name: 'strikeDays', kind: 'days', first: '30', unset: 30 },
      { name: 'suspensionDays', kind: 'dayList', first: '7, 14, 30', unset: 7 },
    ],
  },
]

/** allRules are all rules. */
export const allRules = groups.flatMap((g) => g.rules)

/** checkInRules are the values of the rule checkIn. */
export const checkInRules = [
  'CHECK_IN_RULE_NONE',
  'CHECK_IN_RULE_SEAT',
  'CHECK_IN_RULE_SCREEN',
  'CHECK_IN_RULE_SEAT_AND_SCREEN',
  'CHECK_IN_RULE_DESK',
] as const

/** isSet tells whether rules have a value for a rule. */
export function isSet(rules: Rules | undefined, { name }: Rule): boolean {
  const value = rules?.[name]
  if (value === undefined || value === 'CHECK_IN_RULE_UNSPECIFIED') return false
  return !Array.isArray(value) || value.length > 0
}

/** seconds returns a duration of the API, such as "7200s". */
function seconds(duration: string): number {
  return Number(duration.replace(/s$/, ''))
}

/** durationText returns a time in words, such as 2 hours 30 minutes. */
export function durationText(s: number): string {
  const c = t().common
  const days = Math.floor(s / 86_400)
  const hours = Math.floor((s % 86_400) / 3600)
  const minutes = Math.floor((s % 3600) / 60)
  const parts = [days > 0 && c.days(days), hours > 0 && c.hours(hours), minutes > 0 && c.minutes(minutes)]
  const text = parts.filter((p) => p !== false).join(' ')
  if (text !== '' && s % 60 === 0) return text
  return text === '' && s === 0 ? c.minutes(0) : `${text} ${s % 60} s`.trim()
}

/** ruleText returns the value of a rule in words. */
export function ruleText(rules: Rules | undefined, rule: Rule): string {
  const text = ts().policies
  const value = rules?.[rule.name]
  if (!isSet(rules, rule) || value === undefined) {
    return rule.unset === undefined ? text.notSet : t().common.days(rule.unset)
  }
  switch (rule.kind) {
    case 'bool':
      return value === true ? t().common.yes : t().common.no
    case 'duration':
      return durationText(seconds(String(value)))
    case 'minutes':
      return value === 0 ? text.noLimit : durationText(Number(value) * 60)
    case 'count':
      return value !== 0
        ? number(Number(value))
        : rule.name === 'strikeLimit'
          ? text.notCounted
          : text.noLimit
    case 'days':
      return t().common.days(Number(value))
    case 'dayList':
      return (value as number[]).map((d) => t().common.days(d)).join(', ')
    case 'time':
      return String(value)
    case 'checkIn':
      return text.checkIn[value as keyof typeof text.checkIn]
  }
}

/** formValue returns the value of a rule as a text of the form: durations in seconds. */
export function formValue(rules: Rules | undefined, rule: Rule): string {
  const value = rules?.[rule.name]
  if (!isSet(rules, rule) || value === undefined) return rule.first
  if (rule.kind === 'duration') return String(seconds(String(value)))
  if (rule.kind === 'minutes') return String(Number(value) * 60)
  return Array.isArray(value) ? value.join(', ') : String(value)
}

/** startValue is the value of the form when staff set a rule: 0 means no limit, and needs no rule. */
export function startValue(defaults: Rules | undefined, rule: Rule): string {
  const value = formValue(defaults, rule)
  return value === '0' ? rule.first : value
}

/** apiValue is the inverse of formValue; undefined: the text is no value of the rule. */
export function apiValue(rule: Rule, value: string): Rules[RuleName] | undefined {
  const n = Number(value)
  const whole = value.trim() !== '' && Number.isInteger(n) && n >= 0
  switch (rule.kind) {
    case 'bool':
      return value === 'true'
    case 'duration':
      return whole ? `${n}s` : undefined
    case 'minutes':
      return whole && n % 60 === 0 ? n / 60 : undefined
    case 'count':
    case 'days':
      return whole ? n : undefined
    case 'dayList': {
      const list = value
        .split(/[\s,;，、]+/)
        .filter((d) => d !== '')
        .map(Number)
      return list.length > 0 && list.every((d) => Number.isInteger(d) && d > 0) ? list : undefined
    }
    case 'time':
      return value === '' ? undefined : value
    case 'checkIn':
      return checkInRules.find((r) => r === value)
  }
}

interface RuleInputProps {
  rule: Rule
  value: string
  onChange: (value: string) => void
  attributes: { id: string; 'aria-describedby': string | undefined; 'aria-invalid': true | undefined }
}

const units = { minutes: 60, hours: 3600, days: 86_400 } // seconds

/** unitOf returns the largest unit that a time is a multiple of. */
function unitOf(value: string): keyof typeof units {
  const n = Number(value)
  if (!(n > 0)) return 'minutes'
  return n % units.days === 0 ? 'days' : n % units.hours === 0 ? 'hours' : 'minutes'
}

/** RuleInput edits the value of a rule. */
export function RuleInput({ rule, value, onChange, attributes: a }: RuleInputProps): JSX.Element {
  const text = ts().policies
  switch (rule.kind) {
    case 'bool':
      return (
        <select {...a} value={value} onChange={(e) => onChange(e.currentTarget.value)}>
          <option value="true">{t().common.yes}</option>
          <option value="false">{t().common.no}</option>
        </select>
      )
    case 'checkIn':
      return (
        <>
          <select {...a} value={value} onChange={(e) => onChange(e.currentTarget.value)}>
            {checkInRules.map((r) => (
              <option key={r} value={r}>
                {text.checkIn[r]}
              </option>
            ))}
          </select>
          <small>{text.checkInMeaning[value as keyof typeof text.checkInMeaning]}</small>
        </>
      )
    case 'time':
      return <input {...a} type="time" value={value} onInput={(e) => onChange(e.currentTarget.value)} />
    case 'dayList':
      return <input {...a} value={value} onInput={(e) => onChange(e.currentTarget.value)} />
    case 'count':
    case 'days':
      return (
        <input
          {...a}
          type="number"
          min={rule.kind === 'days' ? 1 : 0}
          value={value}
          onInput={(e) => onChange(e.currentTarget.value)}
        />
      )
    case 'duration':
    case 'minutes':
      return <DurationInput value={value} onChange={onChange} attributes={a} label={text.rule[rule.name]} />
  }
}

interface DurationInputProps extends Pick<RuleInputProps, 'value' | 'onChange' | 'attributes'> {
  label: string
}

/** DurationInput edits a time as a number and a unit. The text of the value has seconds. */
function DurationInput({ value, onChange, attributes: a, label }: DurationInputProps): JSX.Element {
  // The unit is the choice of the user: 2.5 hours do not become 150 minutes while they type.
  const chosen = useSignal(unitOf(value))
  const unit = chosen.value
  const amount = value === '' ? '' : String(Number(value) / units[unit])
  return (
    <div class="row duration">
      <input
        {...a}
        type="number"
        min={0}
        step="any"
        value={amount}
        onInput={(e) => {
          const n = e.currentTarget.valueAsNumber
          onChange(Number.isNaN(n) ? '' : String(Math.round(n * units[unit])))
        }}
      />
      <select
        aria-label={ts().policies.unitOf(label)}
        value={unit}
        onChange={(e) => {
          chosen.value = e.currentTarget.value as keyof typeof units
          if (amount !== '') onChange(String(Math.round(Number(amount) * units[chosen.value])))
        }}
      >
        {(Object.keys(units) as (keyof typeof units)[]).map((u) => (
          <option key={u} value={u}>
            {ts().policies.unit[u]}
          </option>
        ))}
      </select>
    </div>
  )
}
