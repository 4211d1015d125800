import type { ComponentChildren, JSX } from 'preact'
import { t } from '../../i18n/text.ts'
import { Button, useAction } from '../../ui/action.tsx'
import { Dialog } from '../../ui/dialog.tsx'
import { Fault } from '../../ui/problem.tsx'

interface ConfirmProps {
  title: string
  /** The consequences of the action. */
  children: ComponentChildren
  /** The name of the action. */
  action: string
  zone: string
  run: () => Promise<void>
  onClose: () => void
}

/** Confirm asks before an action that cannot be undone. An error of the action shows inside. */
export function Confirm({ title, children, action, zone, run, onClose }: ConfirmProps): JSX.Element {
  const doing = useAction()
  return (
    <Dialog title={title} onClose={onClose}>
      {children}
      <Fault problem={doing.problem.value} zone={zone} />
      <div class="row end">
        <Button onClick={onClose}>{t().common.back}</Button>
        <Button
          kind="danger"
          busy={doing.busy.value}
          onClick={() =>
            void doing.run(run).then((done) => {
              if (done) onClose()
            })
          }
        >
          {action}
        </Button>
      </div>
    </Dialog>
  )
}
