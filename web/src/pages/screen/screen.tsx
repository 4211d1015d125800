import { useSignal } from '@preact/signals'
import { useEffect } from 'preact/hooks'
import type { JSX } from 'preact'
import { t, ts } from '../../i18n/text.ts'
import { display, rememberedScreen, resumeDisplay, setUpDisplay } from '../../state/display.ts'
import { Button, useAction } from '../../ui/action.tsx'
import { Field } from '../../ui/field.tsx'
import { Fault } from '../../ui/problem.tsx'
import { Wall } from './wall.tsx'

/** View is the display in a reading room: codes for check-in, free seats and announcements. */
export function View(): JSX.Element {
  useEffect(() => {
    const left = new AbortController()
    void resumeDisplay(left.signal)
    return () => left.abort()
  }, [])
  const shown = display.value
  if (shown === undefined) {
    return (
      <main class="wall-message">
        <h1>{ts().screen.title}</h1>
        <p role="status">{ts().screen.starting}</p>
      </main>
    )
  }
  return shown === null ? <SetUp /> : <Wall screen={shown.screen} kept={shown.kept} />
}

/** SetUp asks for the service key and the name of the screen, once. */
function SetUp(): JSX.Element {
  const text = ts().screen
  const key = useSignal('')
  const name = useSignal(rememberedScreen())
  const action = useAction()
  const problem = action.problem.value
  const badKey = problem?.status === 401
  return (
    <main class="wall-message">
      <h1>{text.setUpTitle}</h1>
      <p>{text.setUpText}</p>
      <form
        onSubmit={(e) => {
          e.preventDefault()
          void action.run(() => setUpDisplay(key.value.trim(), name.value.trim()))
        }}
      >
        <Field label={text.key} hint={text.keyHint} fault={badKey ? text.badKey : undefined}>
          {(attributes) => (
            <input
              {...attributes}
              type="password"
              required
              autocomplete="off"
              spellcheck={false}
              value={key.value}
              onInput={(e) => {
                key.value = e.currentTarget.value
              }}
            />
          )}
        </Field>
        <Field label={text.name} hint={text.nameHint} optional>
          {(attributes) => (
            <input
              {...attributes}
              maxLength={100}
              autocomplete="off"
              value={name.value}
              onInput={(e) => {
                name.value = e.currentTarget.value
              }}
            />
          )}
        </Field>
        {!badKey && <Fault problem={problem} />}
        <Button type="submit" kind="main" busy={action.busy.value}>
          {text.start}
        </Button>
      </form>
      <p>
        <a href="/">{t().common.toStart}</a>
      </p>
    </main>
  )
}
