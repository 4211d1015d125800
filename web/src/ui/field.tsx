import { useId } from 'preact/hooks'
import type { ComponentChildren, JSX } from 'preact'
import type { Problem } from '../api/problem.ts'
import { t } from '../i18n/text.ts'

/** faultOf returns the fault of a field, such as "endTime", in a problem. */
export function faultOf(problem: Problem | undefined, field: string): string | undefined {
  return problem?.errors.find((e) => e.pointer.replace('#/', '') === field)?.detail
}

interface FieldProps {
  label: string
  hint?: string | undefined
  fault?: string | undefined
  optional?: boolean
  children: (attributes: {
    id: string
    'aria-describedby': string | undefined
    'aria-invalid': true | undefined
  }) => ComponentChildren
}

/** Field is a control with its label, its hint and its fault. */
export function Field({ label, hint, fault, optional = false, children }: FieldProps): JSX.Element {
  const id = useId()
  const described = [hint && `${id}-hint`, fault && `${id}-fault`].filter(Boolean).join(' ') || undefined
  return (
    <div class="field">
      <label for={id}>
        {label}
        {optional && <small> ({t().common.optional})</small>}
      </label>
      {children({
        id,
        'aria-describedby': described,
        'aria-invalid': fault === undefined ? undefined : true,
      })}
      {hint && <small id={`${id}-hint`}>{hint}</small>}
      {fault && (
        <small class="field-fault" id={`${id}-fault`}>
          {fault}
        </small>
      )}
    </div>
  )
}
