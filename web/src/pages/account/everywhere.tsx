import { useSignal } from '@preact/signals'
import type { JSX } from 'preact'
import { t } from '../../i18n/text.ts'
import { signOut } from '../../state/session.ts'
import { Button, useAction } from '../../ui/action.tsx'
import { Dialog } from '../../ui/dialog.tsx'
import { notify } from '../../ui/notice.tsx'
import { Fault } from '../../ui/problem.tsx'

/** SignOutEverywhere ends all sessions of the user, after a confirmation. */
export function SignOutEverywhere(): JSX.Element {
  const open = useSignal(false)
  const { busy, problem, run } = useAction()
  const a = t().account
  const close = (): void => {
    open.value = false
  }
  return (
    <>
      <Button
        onClick={() => {
          open.value = true
        }}
      >
        {a.signOutEverywhere}
      </Button>
      {open.value && (
        <Dialog title={a.signOutEverywhere} onClose={close}>
          <p>{a.everywhereText}</p>
          <Fault problem={problem.value} />
          <div class="row end">
            <Button onClick={close}>{t().common.cancel}</Button>
            <Button
              kind="main"
              busy={busy.value}
              onClick={() =>
                void run(async () => {
                  await signOut(true)
                  notify(t().account.signedOutEverywhere)
                })
              }
            >
              {a.signOutEverywhere}
            </Button>
          </div>
        </Dialog>
      )}
    </>
  )
}
