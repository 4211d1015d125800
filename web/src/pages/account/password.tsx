import { useSignal } from '@preact/signals'
import type { JSX } from 'preact'
import { t } from '../../i18n/text.ts'
import { Field } from '../../ui/field.tsx'

interface PasswordProps {
  label: string
  value: string
  onInput: (value: string) => void
  autocomplete: 'current-password' | 'new-password'
  hint?: string | undefined
  fault?: string | undefined
}

/** PasswordField is a field for a password, which the user can make visible. */
export function PasswordField({
  label,
  value,
  onInput,
  autocomplete,
  hint,
  fault,
}: PasswordProps): JSX.Element {
  const shown = useSignal(false)
  return (
    <Field label={label} hint={hint} fault={fault}>
      {(attributes) => (
        <div class="with-button">
          <input
            {...attributes}
            {...(shown.value ? { type: 'text' as const } : { type: 'password' as const })}
            name={autocomplete}
            autocomplete={autocomplete}
            autocapitalize="off"
            spellcheck={false}
            required
            value={value}
            onInput={(e) => onInput(e.currentTarget.value)}
          />
          <button
            class="button plain"
            type="button"
            aria-pressed={shown.value}
            aria-label={`${t().account.showPassword}: ${label}`}
            onClick={() => {
              shown.value = !shown.value
            }}
          >
            {t().account.show}
          </button>
        </div>
      )}
    </Field>
  )
}
