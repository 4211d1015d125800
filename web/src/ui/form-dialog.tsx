import type { ComponentChildren, JSX } from 'preact'
import { t } from '../i18n/text.ts'
import { Button } from './action.tsx'
import { Dialog } from './dialog.tsx'

interface FormDialogProps {
  title: string
  /** The text of the button that sends the form. */
  submit: ComponentChildren
  kind?: 'main' | 'danger'
  busy?: boolean
  disabled?: boolean
  /** The browser does not check the fields: the page or the server does. */
  noValidate?: boolean
  onSubmit: () => void
  onClose: () => void
  children: ComponentChildren
}

/** FormDialog is a dialog with a form, which is cancelled or sent. */
export function FormDialog({
  title,
  submit,
  kind = 'main',
  busy = false,
  disabled = false,
  noValidate = false,
  onSubmit,
  onClose,
  children,
}: FormDialogProps): JSX.Element {
  return (
    <Dialog title={title} onClose={onClose}>
      <form
        noValidate={noValidate}
        onSubmit={(e) => {
          e.preventDefault()
          onSubmit()
        }}
      >
        {children}
        <div class="row end">
          <Button onClick={onClose}>{t().common.cancel}</Button>
          <Button type="submit" kind={kind} busy={busy} disabled={disabled}>
            {submit}
          </Button>
        </div>
      </form>
    </Dialog>
  )
}
