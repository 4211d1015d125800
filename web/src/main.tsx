import { render } from 'preact'
import { language, setLanguage } from './i18n/text.ts'
import { Shell } from './pages/shell.tsx'
import { resume } from './state/session.ts'

const root = document.getElementById('app')

async function start(): Promise<void> {
  // The page needs its texts; it does not wait for the session.
  void resume()
  await setLanguage(language.value)
  if (root !== null) render(<Shell />, root)
  if ('serviceWorker' in navigator && isSecureContext) registerWorker()
}

/** registerWorker registers the service worker. Trusted Types require a policy for its address. */
function registerWorker(): void {
  const address = '/sw.js'
  const policy = globalThis.trustedTypes?.createPolicy('dlsms', { createScriptURL: () => address })
  const url = policy?.createScriptURL(address) ?? address
  navigator.serviceWorker.register(url as string, { scope: '/' }).catch(() => {
    // Without it, the page needs a network. Private windows refuse it.
  })
}

declare global {
  var trustedTypes:
    | {
        createPolicy: (
          name: string,
          rules: { createScriptURL: (s: string) => string },
        ) => { createScriptURL: (s: string) => unknown }
      }
    | undefined
}

void start()
