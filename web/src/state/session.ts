import { computed, signal } from '@preact/signals'
import { api, call, setToken, whenSignedOut, type Schema } from '../api/client.ts'
import { asProblem, Problem } from '../api/problem.ts'
import { readStored, removeStored, writeStored } from './storage.ts'
import { tell, listen } from './tabs.ts'

/** Account is the user of this page. */
export interface Account {
  user: Schema<'User'>
  /** Branches of the role of a member of staff; empty: all. */
  branches: readonly string[]
  /** End of the token, RFC 3339. */
  expiresAt: string
}

/** account is the signed-in user; null: none; undefined: not known yet, while the page starts. */
export const account = signal<Account | null | undefined>(undefined)

/** ended is the reason for which the server ended the session, until the user signs in again. */
export const ended = signal('')

const staffRoles = ['ROLE_STAFF', 'ROLE_LIBRARIAN', 'ROLE_ADMIN']
export const isStaff = computed(() => staffRoles.includes(account.value?.user.role ?? ''))
export const isLibrarian = computed(() => staffRoles.slice(1).includes(account.value?.user.role ?? ''))
export const isAdmin = computed(() => account.value?.user.role === 'ROLE_ADMIN')

/**
 * Whether the session of this tab is in the cookie, too. Only then may this device keep what belongs to
 * the user: otherwise the session ends with the page, and the next person at this computer finds nothing.
 */
let stays = false

/** staysSignedIn tells that the user of this tab has chosen to stay signed in on this device. */
export function staysSignedIn(): boolean {
  return stays
}

/** Says that a cookie may exist, so that a visitor without one costs no request. It is no secret. */
const staying = 'dlsms.stay'

/**
 * resuming tells that the user stays signed in on this device, but the page has no session yet: it is
 * starting, or the server cannot be reached.
 */
export const resuming = signal(readStored(staying) !== null)

whenSignedOut((reason) => {
  if (!account.value) return
  const user = account.value.user.id
  setToken('')
  stays = false
  ended.value = reason
  account.value = null
  // Another tab may have signed in again since, for example with a new password. If it is another user
  // there, this page does not become theirs in the middle of something.
  void resume(user)
})

/** A tab that signs out signs out the others, and one that signs in lets the others look for the cookie. */
listen((message) => {
  if (message === 'signed-out') forget()
  if (message === 'signed-in' && account.value === null) void resume()
})

/** How long the page waits before it tries again to restore the session, in milliseconds. */
const resumeInterval = 5000
let again: ReturnType<typeof setTimeout> | undefined

/** resume restores the session of the cookie, if there is one; with `only`, if it is of the user with this id. */
export async function resume(only?: string): Promise<void> {
  if (readStored(staying) === null) {
    resuming.value = false
    account.value = null
    return
  }
  try {
    const { accessToken, key, userId } = await call(api.POST('/v1/auth/session:resume'))
    if (key) {
      loseCookie() // the browser has become a screen: see display.ts
      resuming.value = false
      account.value = null
      return
    }
    if (only !== undefined && userId !== only) {
      resuming.value = false
      return
    }
    setToken(accessToken)
    stays = true
    await load()
    resuming.value = false
    ended.value = ''
  } catch (e) {
    const problem = asProblem(e)
    if (problem.status === 401) {
      removeStored(staying)
      resuming.value = false
    }
    account.value = null
    if (problem.temporary) {
      clearTimeout(again)
      again = setTimeout(() => {
        if (account.value === null && resuming.value) void resume(only)
      }, resumeInterval)
    }
  }
}

/**
 * signIn signs in, and with stay keeps the user signed in after the page is closed. It reports whether
 * the user stays signed in.
 */
export async function signIn(studentId: string, password: string, stay: boolean): Promise<boolean> {
  const { accessToken, expiresAt, user } = await call(
    api.POST('/v1/auth/login', { body: { studentId, password } }),
  )
  if (user === undefined) throw Problem.offline()
  setToken(accessToken)
  stays = false
  if (stay) {
    try {
      await call(api.POST('/v1/auth/session'))
      writeStored(staying, '1')
      stays = true
    } catch (e) {
      asProblem(e) // without TLS there is no cookie: the session lasts as long as the page
    }
  }
  // The cookie may be of the user before, whose session could not be resumed.
  if (!stays) await endCookie()
  await load({ user, branches: [], expiresAt: expiresAt ?? '' })
  resuming.value = false
  ended.value = ''
  tell('signed-in')
  return stays
}

/**
 * changePassword sets another password. The server ends all sessions of the user, so this one begins
 * again with the new password at once.
 */
export async function changePassword(currentPassword: string, newPassword: string): Promise<void> {
  const user = account.value?.user
  if (user === undefined) throw Problem.offline()
  try {
    await call(api.POST('/v1/auth/password', { body: { currentPassword, newPassword } }))
  } catch (e) {
    // The answer of an earlier attempt may be lost: then the new password is valid already.
    const problem = asProblem(e)
    if (problem.reason !== 'TOKEN_REVOKED') throw problem
  }
  setToken('') // the streams of this page end now, which is no news
  try {
    await signIn(user.studentId, newPassword, readStored(staying) !== null)
  } catch (e) {
    forget()
    throw asProblem(e)
  }
}

/** closeAccount closes the account of the user for good. */
export async function closeAccount(password: string): Promise<void> {
  await call(api.POST('/v1/auth/close', { body: { password } }))
  await endCookie()
  forget()
  tell('signed-out')
}

async function load(known?: Account): Promise<void> {
  const answer = await call(api.GET('/v1/auth/account'))
  const user = answer.user ?? known?.user
  if (user === undefined) throw Problem.offline()
  account.value = { user, branches: answer.branches, expiresAt: answer.expiresAt ?? known?.expiresAt ?? '' }
}

/** signOut ends the session here, or with everywhere on all devices. */
export async function signOut(everywhere = false): Promise<void> {
  try {
    await call(api.POST('/v1/auth/logout', { body: { everywhere } }))
  } catch (e) {
    if (!asProblem(e).signedOut) throw e
  }
  await endCookie()
  forget()
  tell('signed-out')
}

/** endCookie removes the cookie of this browser, for example after the account was closed. */
export async function endCookie(): Promise<void> {
  if (readStored(staying) === null) return
  await call(api.POST('/v1/auth/session:end')).catch(asProblem)
  removeStored(staying)
}

/** loseCookie says that the cookie has no session of a user any more. The tab stays signed in. */
export function loseCookie(): void {
  stays = false
  removeStored(staying)
}

/** forget drops the session in this tab. */
export function forget(): void {
  stays = false
  setToken('')
  resuming.value = false
  account.value = null
  ended.value = ''
}
