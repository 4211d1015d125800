import { randomBytes } from 'node:crypto'
import createClient, { type Client } from 'openapi-fetch'
import type { components, paths } from '../../src/api/schema.ts'

export type Schema<Name extends keyof components['schemas']> = components['schemas'][Name]
export type Api = Client<paths>

/** url is the origin of the system under test. */
export const url = process.env['DLSMS_URL'] ?? 'http://127.0.0.1:8080'

/** secureUrl returns the origin with HTTPS. */
export function secureUrl(): string {
  const found = process.env['DLSMS_HTTPS_URL'] ?? ''
  if (found === '') throw new Error('the system has no HTTPS: set DLSMS_HTTPS_URL, or run without DLSMS_URL')
  return found
}

/** clientOf returns a client of the API with a token; empty: none. */
export function clientOf(token: string): Api {
  return createClient<paths>({
    baseUrl: url,
    headers: token === '' ? {} : { Authorization: `Bearer ${token}` },
  })
}

/** visitor is a client without a token. */
export const visitor = clientOf('')

/** ApiError is an answer that is not a success. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly reason: string,
    readonly body: unknown,
    address: string,
  ) {
    super(`${address}: ${status} ${reason} ${JSON.stringify(body)}`)
  }
}

/**
 * ok returns the answer of a call, or throws an ApiError if its status is not 2xx:
 *
 *     const { strikes } = await ok(person.api.GET('/v1/standing'))
 */
export async function ok<T>(answer: Promise<{ data?: T; error?: unknown; response: Response }>): Promise<T> {
  const { data, error, response } = await answer
  if (!response.ok) {
    const reason = (error as { reason?: string } | undefined)?.reason ?? ''
    throw new ApiError(response.status, reason, error, response.url)
  }
  return data as T
}

/** Person is a user with a token and a client that uses it. */
export interface Person {
  id: string
  studentId: string
  name: string
  password: string
  token: string
  api: Api
}

export const password = 'password123'

/** login signs in. The demo data has S2021001 to S2021010, D0001, L0001 and A0001. */
export async function login(studentId: string, secret = password): Promise<Person> {
  const { accessToken, user } = await ok(
    visitor.POST('/v1/auth/login', { body: { studentId, password: secret } }),
  )
  if (user === undefined) throw new Error('the login returned no user')
  const { id, name } = user
  return {
    id,
    studentId: user.studentId,
    name,
    password: secret,
    token: accessToken,
    api: clientOf(accessToken),
  }
}

/** unique returns a name that no other test has. Tests share the system. */
export function unique(prefix: string): string {
  return prefix + randomBytes(5).toString('hex')
}

/** newStudent registers a student of its own for a test. */
export async function newStudent(name = 'Robin Example', secret = password): Promise<Person> {
  const studentId = unique('T')
  const email = `${studentId.toLowerCase()}@university.example`
  await ok(visitor.POST('/v1/auth/register', { body: { studentId, name, email, password: secret } }))
  return login(studentId, secret)
}

let adminPerson: Promise<Person> | undefined

/** admin returns the admin of the demo data. */
export function admin(): Promise<Person> {
  adminPerson ??= login('A0001')
  return adminPerson
}

/** newStaff makes a member of staff for these branches; none: for all. */
export async function newStaff(
  role: 'ROLE_STAFF' | 'ROLE_LIBRARIAN' | 'ROLE_ADMIN',
  branches: readonly string[] = [],
  name = 'Sascha Example',
): Promise<Person> {
  const { studentId } = await newStudent(name)
  const { api } = await admin()
  const params = { path: { studentId } }
  await ok(
    api.POST('/v1/admin/users/{studentId}:setRole', { params, body: { role, branches: [...branches] } }),
  )
  return login(studentId) // the role is in the token
}

/** Branch is a branch of a test with its seats, in the order of their labels. */
export interface Branch {
  code: string
  name: string
  zone: string
  seats: readonly Schema<'Seat'>[]
}

/** Options of a new branch. */
export interface BranchOptions {
  seats?: number
  name?: string
  zone?: string
  /** Names of the areas; the seats are spread over them. Default: one. */
  areas?: readonly string[]
  /** Give the seats places on the floor plan, in tables of four. */
  plan?: boolean
  /** Returns more about the seat with an index from 0, such as its amenities. */
  seat?: (index: number) => Partial<Schema<'SeatSpec'>>
}

/** newBranch makes a branch with seats of its own for a test. It has no opening hours: it is always open. */
export async function newBranch(options: BranchOptions = {}): Promise<Branch> {
  const { api } = await admin()
  const code = unique('branch') // its name never contains the label of a seat, such as T-01
  const name = options.name ?? `Branch ${code}`
  const zone = options.zone ?? 'Europe/Berlin'
  const areas = options.areas ?? ['Hall']
  const count = options.seats ?? 4
  await ok(
    api.POST('/v1/admin/branches/{code}', { params: { path: { code } }, body: { name, timezone: zone } }),
  )
  const specs = Array.from({ length: count }, (_, i): Schema<'SeatSpec'> => {
    const table = Math.floor(i / 4)
    const place = {
      desk: `T${table + 1}`,
      xCm: 200 + (table % 10) * 400 + (i % 2) * 120,
      yCm: 200 + Math.floor(table / 10) * 400 + (i % 4 < 2 ? 0 : 160),
      angle: i % 4 < 2 ? 180 : 0,
    }
    return {
      label: `T-${String(i + 1).padStart(count > 99 ? 4 : 2, '0')}`,
      area: areas[Math.floor((i * areas.length) / count)] ?? 'Hall',
      ...(options.plan === true ? place : {}),
      ...options.seat?.(i),
    }
  })
  const params = { path: { branch: code } }
  for (let i = 0; i < specs.length; i += 500) {
    await ok(
      api.POST('/v1/admin/branches/{branch}/seats', { params, body: { seats: specs.slice(i, i + 500) } }),
    )
  }
  const { seats } = await ok(visitor.GET('/v1/seats', { params: { query: { branch: code } } }))
  return { code, name, zone, seats: [...seats].sort((a, b) => a.label.localeCompare(b.label)) }
}

/** inMinutes returns the time in n minutes, in RFC 3339. */
export function inMinutes(n: number): string {
  return new Date(Date.now() + n * 60_000).toISOString()
}

/** book reserves a seat for a person: from now, or from a number of minutes from now. */
export async function book(
  person: Person,
  seatId: string,
  options: { start?: number; minutes?: number } = {},
): Promise<Schema<'Reservation'>> {
  const start = options.start ?? 0
  const body: Schema<'CreateReservationRequest'> = {
    seatId,
    endTime: inMinutes(start + (options.minutes ?? 60)),
  }
  if (start > 0) body.startTime = inMinutes(start)
  const { reservation } = await ok(person.api.POST('/v1/reservations', { body }))
  if (reservation === undefined) throw new Error('the call returned no reservation')
  return reservation
}

/** demoScreenKey is the service key of the demo screen of the branch main: see store/seed.go. */
export const demoScreenKey = 'dlsms-key-9007199254740991-demo-screen-key-everybody-can-read-this-key'
