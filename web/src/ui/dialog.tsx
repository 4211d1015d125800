import { useEffect, useId, useRef } from 'preact/hooks'
import type { ComponentChildren, JSX } from 'preact'
import { t } from '../i18n/text.ts'

interface DialogProps {
  title: string
  onClose: () => void
  children: ComponentChildren
  /** sheet slides in from the edge of the screen, and the page behind stays visible. */
  kind?: 'dialog' | 'sheet'
}

/**
 * Dialog is a modal dialog. The browser keeps the focus inside, Escape closes it, and the focus
 * returns to the control that opened it. A press beside it closes it, unless the user has typed in it.
 */
export function Dialog({ title, onClose, children, kind = 'dialog' }: DialogProps): JSX.Element {
  const ref = useRef<HTMLDialogElement>(null)
  const edited = useRef(false)
  const id = useId()
  useEffect(() => {
    const dialog = ref.current
    const opener = document.activeElement
    if (dialog !== null && !dialog.open) dialog.showModal()
    return () => {
      dialog?.close()
      if (opener instanceof HTMLElement || opener instanceof SVGElement) opener.focus()
    }
  }, [])
  return (
    <dialog
      ref={ref}
      class={kind}
      aria-labelledby={id}
      onCancel={(e) => {
        e.preventDefault()
        onClose()
      }}
      onInput={() => {
        edited.current = true
      }}
      onClick={(e) => {
        if (e.target === ref.current && !edited.current) onClose()
      }}
    >
      <div class="dialog-body">
        <header>
          <h2 id={id}>{title}</h2>
          <button class="icon-button" type="button" aria-label={t().common.close} onClick={onClose}>
            ×
          </button>
        </header>
        {children}
      </div>
    </dialog>
  )
}
