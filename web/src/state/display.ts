import { signal } from '@preact/signals'
import { api, call } from '../api/client.ts'
import { asProblem, Problem } from '../api/problem.ts'
import { loseCookie } from './session.ts'
import { readStored, writeStored } from './storage.ts'

/** Display is a screen of a branch, which this browser shows. */
export interface Display {
  /** Name of the screen; empty: the only screen of the branch. */
  screen: string
  /** Whether the browser keeps the key, so that the display survives a restart. It needs HTTPS for that. */
  kept: boolean
}

/** display is the screen of this browser; null: it is not set up; undefined: not known yet. */
export const display = signal<Display | null | undefined>(undefined)

/** The name of the screen, on this device. It also says that the cookie has a key. The key is only there. */
const stored = 'dlsms.screen'

let key = ''

/** displayKey returns the service key. It is kept in memory and in the cookie, which scripts cannot read. */
export function displayKey(): string {
  return key
}

/** rememberedScreen returns the name of the screen that this browser has shown last. */
export function rememberedScreen(): string {
  return readStored(stored) ?? ''
}

/**
 * resumeDisplay restores the display after a restart. A computer may start before its network, so it
 * tries again until the server answers or the page is left.
 */
export async function resumeDisplay(left: AbortSignal): Promise<void> {
  if (display.value) return
  if (readStored(stored) === null) {
    display.value = null
    return
  }
  while (!left.aborted) {
    try {
      const session = await call(api.POST('/v1/auth/session:resume'))
      if (session.key) {
        key = session.accessToken
        display.value = { screen: rememberedScreen(), kept: true }
      } else {
        display.value = null // a user has signed in since then
      }
      return
    } catch (e) {
      const problem = asProblem(e)
      if (problem.status >= 400 && problem.status < 500 && problem.status !== 429) {
        display.value = null
        return
      }
      await pause(5000, left)
    }
  }
}

/** setUpDisplay checks a service key and makes this browser the display of a screen. */
export async function setUpDisplay(newKey: string, screen: string): Promise<void> {
  let kept = true
  try {
    const session = await call(
      api.POST('/v1/auth/session', { headers: { Authorization: `Bearer ${newKey}` } }),
    )
    if (!session.key) throw new Problem(401, 'TOKEN_INVALID', 'not a service key', {}, [], '')
    loseCookie()
    writeStored(stored, screen)
  } catch (e) {
    // Without HTTPS there is no cookie. The display works until the page is closed.
    if (asProblem(e).status !== 400) throw e
    kept = false
  }
  key = newKey
  display.value = { screen, kept }
}

/** renameDisplay follows a screen that a librarian has renamed. */
export function renameDisplay(screen: string): void {
  if (!display.value || display.value.screen === '' || display.value.screen === screen) return
  if (display.value.kept) writeStored(stored, screen)
  display.value = { ...display.value, screen }
}

/** endDisplay removes the key from this browser. The name of the screen stays, as a proposal. */
export async function endDisplay(): Promise<void> {
  if (display.value?.kept === true) await call(api.POST('/v1/auth/session:end'))
  key = ''
  display.value = null
}

function pause(milliseconds: number, left: AbortSignal): Promise<void> {
  return new Promise((done) => {
    const timer = setTimeout(done, milliseconds)
    left.addEventListener('abort', () => {
      clearTimeout(timer)
      done()
    })
  })
}
