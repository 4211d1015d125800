import createClient from 'openapi-fetch'
import { observeServerTime } from '../state/clock.ts'
import { Problem } from './problem.ts'
import type { components, paths } from './schema.ts'

/** Schema is a message of the API. Example: Schema<'Seat'>. */
export type Schema<Name extends keyof components['schemas']> = components['schemas'][Name]

let token = ''
let onSignedOut = (_reason: string): void => {}

/** setToken sets the token of all later calls; empty: none. It is kept in memory only. */
export function setToken(t: string): void {
  token = t
}

/** whenSignedOut sets the function that is called when the server no longer accepts the token. */
export function whenSignedOut(f: (reason: string) => void): void {
  onSignedOut = f
}

/** authorization returns the header of a call. */
export function authorization(): Record<string, string> {
  return token === '' ? {} : { Authorization: `Bearer ${token}` }
}

/**
 * reportProblem tells the session that its token has ended, if p says so. A late answer to a call with
 * an earlier token, such as that from before a change of the password, says nothing about the session:
 * `sent` is the Authorization header of the call.
 */
export function reportProblem(p: Problem, sent = authorization()['Authorization']): void {
  if (p.signedOut && token !== '' && sent === authorization()['Authorization']) onSignedOut(p.reason)
}

/** The Authorization header of the request of each answer. */
const sentWith = new WeakMap<Response, string>()

/**
 * Every call of the API is safe to repeat, so a call that got no answer is repeated for a few seconds:
 * a replica may have stopped. CreateReservation and JoinWaitlist need an Idempotency-Key for that,
 * which a caller keeps for as long as the user wants the same thing.
 */
const attempts = [0, 300, 800, 1500, 2500] // milliseconds to wait before each attempt

async function send(request: Request): Promise<Response> {
  let last: Problem = Problem.offline()
  for (const wait of attempts) {
    await sleep(Math.max(wait, wait === 0 ? 0 : (last.retryAfter ?? 0) * 1000))
    try {
      const response = await whole(await fetch(request.clone()))
      if (![502, 503, 504].includes(response.status)) return response
      last = Problem.from(response, await response.json().catch(() => null))
      if (last.reason === 'OVERLOADED') break
    } catch (e) {
      if (request.signal.aborted) throw e
      last = Problem.offline()
      if (!navigator.onLine) break
    }
  }
  throw last
}

/**
 * whole reads an answer to its end, so that one that breaks off is repeated, too. A page of HTML is not
 * from this server, but from a network that wants a sign-in, for example.
 */
async function whole(answer: Response): Promise<Response> {
  const body = await answer.arrayBuffer()
  if (answer.ok && body.byteLength > 0 && /^text\/html\b/i.test(answer.headers.get('Content-Type') ?? ''))
    throw new TypeError('the answer is a page')
  return new Response(body.byteLength === 0 ? null : body, answer)
}

function sleep(ms: number): Promise<void> {
  return ms === 0 ? Promise.resolve() : new Promise((done) => setTimeout(done, ms))
}

const client = createClient<paths>({ baseUrl: location.origin, fetch: send })
client.use({
  onRequest({ request }) {
    // A call with a token of its own, such as the key of a screen, keeps it.
    if (request.headers.has('Authorization')) return request
    for (const [name, value] of Object.entries(authorization())) request.headers.set(name, value)
    return request
  },
  onResponse({ request, response }) {
    sentWith.set(response, request.headers.get('Authorization') ?? '')
    observeServerTime(response.headers.get('Date'))
  },
})

export const api = client

/**
 * call returns the answer of a request of api, or throws a Problem:
 *
 *     const { branches } = await call(api.GET('/v1/branches'))
 */
export async function call<T>(
  answer: Promise<{ data?: T; error?: unknown; response: Response }>,
): Promise<T> {
  const { data, error, response } = await answer.catch((e: unknown) => {
    throw e instanceof SyntaxError ? Problem.offline() : e // the answer is not JSON
  })
  if (!response.ok) {
    const p = Problem.from(response, error)
    reportProblem(p, sentWith.get(response))
    throw p
  }
  return data as T
}

/** newKey returns an Idempotency-Key for something that the user wants once. */
export function newKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16)) // randomUUID is missing without TLS
  return Array.from(bytes, (b) => b.toString(16).padStart(2, '0')).join('')
}
