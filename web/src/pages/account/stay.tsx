import type { Signal } from '@preact/signals'
import type { JSX } from 'preact'
import { t } from '../../i18n/text.ts'

/** Stay is the choice to stay signed in on this device. */
export function Stay({ value }: { value: Signal<boolean> }): JSX.Element {
  const a = t().account
  // A browser keeps a cookie that scripts cannot read only over HTTPS, or on the device itself.
  if (!isSecureContext) {
    return (
      <p class="stay">
        <small>{a.stayImpossible}</small>
      </p>
    )
  }
  return (
    <div class="stay">
      <label class="choice">
        <input
          type="checkbox"
          checked={value.value}
          aria-describedby="stay-hint"
          onChange={(e) => {
            value.value = e.currentTarget.checked
          }}
        />
        {a.stay}
      </label>
      <small id="stay-hint">{a.stayHint}</small>
    </div>
  )
}
