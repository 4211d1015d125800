import assert from 'node:assert/strict'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import decodeQR from 'qr/decode.js'
import {
  admin,
  book,
  newBranch,
  newStudent,
  ok,
  unique,
  url,
  visitor,
  type Branch,
  type Person,
} from './harness/api.ts'
import { checkAxe } from './harness/axe.ts'
import { test, type Page } from './harness/browser.ts'
import { until } from './harness/until.ts'

interface Screen {
  branch: Branch
  name: string
  key: string
  keyId: string
}

/** newScreen makes a branch with a screen, whose codes are needed to check in. */
async function newScreen(branch?: Branch): Promise<Screen> {
  branch ??= await newBranch()
  const { api } = await admin()
  const name = unique('Screen ')
  const at = { params: { path: { branch: branch.code } } }
  await ok(api.POST('/v1/admin/branches/{branch}/screens', { ...at, body: { name } }))
  const policy = { branch: branch.code, rules: { checkIn: 'CHECK_IN_RULE_SCREEN' as const } }
  await ok(api.POST('/v1/admin/policies', { body: { policy } }))
  const { secret, keyId } = await newKey(branch, name)
  return { branch, name, key: secret, keyId }
}

async function newKey(branch: Branch, name: string): Promise<{ secret: string; keyId: string }> {
  const { api } = await admin()
  const body = { name, branch: branch.code, scopes: ['KEY_SCOPE_SCREEN' as const] }
  const { secret, key } = await ok(api.POST('/v1/admin/keys', { body }))
  return { secret, keyId: key?.id ?? '' }
}

/** setScreen changes the screen, as a librarian does. */
async function setScreen(s: Screen, body: { newName?: string; off?: boolean }): Promise<void> {
  const { api } = await admin()
  const at = { params: { path: { branch: s.branch.code } } }
  await ok(api.POST('/v1/admin/branches/{branch}/screens', { ...at, body: { name: s.name, ...body } }))
}

async function show(page: Page, s: Screen, name = s.name): Promise<void> {
  await page.goto('/screen')
  await page.getByLabel('Service key').fill(s.key)
  await page.getByLabel('Name of the screen').fill(name)
  await page.getByRole('button', { name: 'Start the display' }).click()
  await page.locator('.wall').waitFor()
}

/** digits returns the eight digits that the screen shows. */
async function digits(page: Page): Promise<string> {
  const text = (await page.locator('.wall-digits b').textContent()) ?? ''
  assert.match(text, /^\d{4} \d{4}$/)
  return text
}

/** checksIn books a seat from now on and checks in with a code. */
async function checksIn(student: Person, seatId: string, presenceCode: string): Promise<void> {
  const { id } = await book(student, seatId)
  const at = { params: { path: { reservationId: id } } }
  const { reservation } = await ok(
    student.api.POST('/v1/reservations/{reservationId}:checkIn', { ...at, body: { presenceCode } }),
  )
  assert.equal(reservation?.status, 'RESERVATION_STATUS_CHECKED_IN')
  assert.equal(reservation.proof, 'PROOF_SCREEN')
}

/** scan returns the text of the QR code on the screen, as a camera reads it. */
async function scan(page: Page): Promise<string> {
  const png = (await page.locator('.wall-qr > svg').first().screenshot()).toString('base64')
  // A canvas decodes the picture; the page itself may not load it.
  const empty = await page.context().newPage()
  const side = 370 // ten pixels a module of the smallest code
  const pixels = await empty.evaluate(
    async ([data, size]) => {
      const bitmap = await createImageBitmap(await (await fetch(`data:image/png;base64,${data}`)).blob())
      const context = new OffscreenCanvas(size, size).getContext('2d')
      context?.drawImage(bitmap, 0, 0, size, size)
      const rgba = context?.getImageData(0, 0, size, size).data ?? new Uint8ClampedArray()
      let text = ''
      for (let i = 0; i < rgba.length; i += 4) text += (rgba[i] ?? 0) < 128 ? '1' : '0'
      return text
    },
    [png, side] as const,
  )
  await empty.close()
  const data = Uint8Array.from(
    [...pixels].flatMap((p) => (p === '1' ? [0, 0, 0, 255] : [255, 255, 255, 255])),
  )
  return decodeQR({ width: side, height: side, data })
}

/** Line is a connection to the server that a test can cut. */
interface Line {
  url: string
  cut(): void
  mend(): void
  close(): Promise<void>
}

async function newLine(): Promise<Line> {
  const target = new URL(url)
  const sockets = new Set<Socket>()
  let down = false
  const server = createServer((from) => {
    if (down) return void from.destroy()
    const to = connect(Number(target.port), target.hostname)
    for (const [socket, other] of [
      [from, to],
      [to, from],
    ] as const) {
      sockets.add(socket)
      socket.on('error', () => other.destroy())
      socket.on('close', () => {
        sockets.delete(socket)
        other.destroy()
      })
      socket.pipe(other)
    }
  })
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  const end = (): void => sockets.forEach((s) => s.destroy())
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    cut() {
      down = true
      end()
    },
    mend() {
      down = false
    },
    async close() {
      end()
      await new Promise((done) => server.close(done))
    },
  }
}

test('the screen shows digits and a QR code that the server accepts', async (b) => {
  const s = await newScreen()
  for (const theme of ['light', 'dark'] as const) {
    const page = await b.page({ theme })
    await show(page, s)
    await page.getByRole('heading', { name: s.branch.name }).waitFor()
    await checksIn(
      await newStudent(),
      s.branch.seats[theme === 'light' ? 0 : 1]?.id ?? '',
      await digits(page),
    )
    const text = await scan(page)
    const prefix = `${new URL(page.url()).origin.toUpperCase()}/C/`
    assert.ok(text.startsWith(prefix), text)
    const { screen } = await ok(visitor.POST('/v1/scans', { body: { code: text } }))
    assert.equal(screen, s.name)
  }
})

test('the occupancy changes at once', async (b) => {
  const s = await newScreen()
  const page = await b.page()
  await show(page, s)
  await page.locator('.wall-free b').getByText('4', { exact: true }).waitFor()
  await book(await newStudent(), s.branch.seats[0]?.id ?? '')
  await page.locator('.wall-free b').getByText('3', { exact: true }).waitFor()
})

test('a clock of the device that is wrong by an hour, or is set, does not matter', async (b) => {
  const s = await newScreen()
  const page = await b.page({
    before: () => {
      let wrong = 3_600_000
      const now = Date.now.bind(Date)
      Date.now = () => now() + wrong
      Object.assign(globalThis, {
        setClock: (by: number) => {
          wrong = by
        },
      })
    },
  })
  await show(page, s)
  const shown = await page.locator('.wall-clock b').textContent()
  const berlin = (at: number): string =>
    new Intl.DateTimeFormat('en-GB', {
      timeZone: 'Europe/Berlin',
      hour: '2-digit',
      minute: '2-digit',
    }).format(at)
  assert.ok([berlin(Date.now()), berlin(Date.now() - 10_000)].includes(shown ?? ''), shown ?? '')
  await checksIn(await newStudent(), s.branch.seats[0]?.id ?? '', await digits(page))
  await page.evaluate(() =>
    (globalThis as unknown as { setClock: (by: number) => void }).setClock(-7_200_000),
  )
  await page.locator('.wall-digits').waitFor()
  await checksIn(await newStudent(), s.branch.seats[1]?.id ?? '', await digits(page))
})

test('without a connection the screen goes on with its codes, then sends people to the desk', async (b) => {
  const s = await newScreen()
  const line = await newLine()
  const page = await b.page({
    faults: true,
    context: { baseURL: line.url },
    before: () => {
      let skipped = 0
      const now = performance.now.bind(performance)
      performance.now = () => now() + skipped
      Object.assign(globalThis, {
        skip: (by: number) => {
          skipped += by
        },
      })
    },
  })
  const skip = (by: number): Promise<void> =>
    page.evaluate((ms) => (globalThis as unknown as { skip: (by: number) => void }).skip(ms), by)
  await show(page, s)
  const first = await digits(page)
  line.cut()
  await page.getByText('No connection to the library. The codes stay valid').waitFor({ timeout: 60_000 })
  await until(async () => assert.notEqual(await digits(page), first))
  await checksIn(await newStudent(), s.branch.seats[0]?.id ?? '', await digits(page))
  await skip(180_000)
  await digits(page)
  await skip(180_000)
  await page.getByRole('heading', { name: 'To check in, ask at the desk.' }).waitFor()
  assert.equal(await page.locator('.wall-qr').count(), 0)
  line.mend()
  await page.locator('.wall-digits').waitFor({ timeout: 60_000 })
  await until(async () => assert.equal(await page.getByText('No connection').count(), 0))
  await checksIn(await newStudent(), s.branch.seats[1]?.id ?? '', await digits(page))
  await page.context().close()
  await line.close()
})

test('a screen that is switched off removes its codes, and shows them again when it is on', async (b) => {
  const s = await newScreen()
  const page = await b.page()
  await show(page, s)
  await digits(page)
  await setScreen(s, { off: true })
  await page.getByText('This screen is switched off.').waitFor()
  assert.equal(await page.locator('.wall-digits, .wall-qr').count(), 0)
  await setScreen(s, { off: false })
  await page.locator('.wall-digits').waitFor()
})

test('a key that is revoked: the screen removes its codes and says what to do', async (b) => {
  const s = await newScreen()
  const page = await b.page()
  await show(page, s)
  await digits(page)
  const { api } = await admin()
  await ok(api.POST('/v1/admin/keys/{keyId}:revoke', { params: { path: { keyId: s.keyId } }, body: {} }))
  await page.getByText('The key of this screen is not valid').waitFor()
  assert.equal(await page.locator('.wall-digits, .wall-qr').count(), 0)
  await page.getByRole('button', { name: 'Set up again' }).click()
  assert.equal(await page.getByLabel('Name of the screen').inputValue(), s.name)
  await page.getByLabel('Service key').fill((await newKey(s.branch, s.name)).secret)
  await page.getByRole('button', { name: 'Start the display' }).click()
  await page.locator('.wall-digits').waitFor()
})

test('a key that is misspelled is refused in the form', async (b) => {
  const s = await newScreen()
  const page = await b.page()
  await page.goto('/screen')
  await page.getByLabel('Service key').fill(s.key.slice(0, -1) + (s.key.endsWith('a') ? 'b' : 'a'))
  await page.getByRole('button', { name: 'Start the display' }).click()
  await page.getByText('The key of this screen is not valid').waitFor()
})

test('a reload keeps the display, also after a new name, and no script can read the key', async (b) => {
  const s = await newScreen()
  const page = await b.page()
  await show(page, s)
  const newName = unique('Hall ')
  await setScreen(s, { newName })
  await until(async () => {
    assert.ok(
      Object.values(await page.evaluate(() => ({ ...localStorage }))).includes(newName),
      'the new name is not kept',
    )
  })
  await page.reload()
  await page.locator('.wall-digits').waitFor()
  const stored = await page.evaluate(async () =>
    JSON.stringify([
      { ...localStorage },
      { ...sessionStorage },
      document.cookie,
      location.href,
      await indexedDB.databases(),
    ]),
  )
  const secret = s.key.slice(-20)
  assert.ok(!stored.includes(secret), stored)
  const cookie = (await page.context().cookies()).find((c) => c.value === s.key)
  assert.ok(cookie?.httpOnly && cookie.sameSite === 'Strict', JSON.stringify(cookie))
})

test('several screens: without a name, the screen asks for one', async (b) => {
  const s = await newScreen()
  await newScreen(s.branch)
  const page = await b.page()
  await page.goto('/screen')
  await page.getByLabel('Service key').fill(s.key)
  await page.getByRole('button', { name: 'Start the display' }).click()
  await page.getByText('The branch has several screens').waitFor()
  await page.getByRole('button', { name: 'Set up again' }).click()
  await page.getByLabel('Service key').fill(s.key)
  await page.getByLabel('Name of the screen').fill(s.name)
  await page.getByRole('button', { name: 'Start the display' }).click()
  await page.locator('.wall-digits').waitFor()
})

test('announcements and closures appear at once as text, and their languages take turns', async (b) => {
  const s = await newScreen()
  const { api } = await admin()
  const page = await b.page()
  await show(page, s)
  const text = { en: 'Exams <b id="x">week</b>', de: 'Prüfungswoche' }
  const at = { params: { path: { branch: s.branch.code } } }
  await ok(api.POST('/v1/admin/branches/{branch}/announcement', { ...at, body: { text } }))
  await page.locator('.wall-news [lang=en]').getByText(text.en).waitFor()
  assert.equal(await page.locator('#x').count(), 0)
  await page.locator('.wall-news [lang=de]').getByText(text.de).waitFor()
  const seatIds = [s.branch.seats[0]?.id ?? '']
  const note = { en: 'The lamp is broken.' }
  await ok(api.POST('/v1/admin/closures', { body: { branch: s.branch.code, seatIds, note } }))
  await page.getByText('1 seat is closed').waitFor()
  const still = await b.page({ context: { reducedMotion: 'reduce' } })
  await show(still, s)
  for (const line of Object.values(text)) await still.locator('.wall-news').getByText(line).waitFor()
})

test('touch: the free seats, how to check in, and back to the code after a minute', async (b) => {
  const s = await newScreen(await newBranch({ seats: 6, areas: ['Hall', 'Attic'] }))
  const page = await b.page({ device: 'phone' })
  await page.clock.install()
  await show(page, s)
  await page.getByRole('button', { name: 'How to check in' }).click()
  await page.getByText('Point the camera of your phone').waitFor()
  await page.getByRole('button', { name: 'Find a seat' }).click()
  await page.getByRole('listitem').getByText('T-01').waitFor()
  await book(await newStudent(), s.branch.seats[0]?.id ?? '')
  await page.getByRole('listitem').getByText('T-01').waitFor({ state: 'detached' })
  await page.getByRole('img', { name: 'Map of the seats' }).waitFor()
  await page.clock.fastForward(61_000)
  await page.locator('.wall-digits').waitFor()
})

test('the screen has no violation of axe and fits 320 pixels', async (b) => {
  const s = await newScreen()
  for (const device of ['desktop', 'phone', 'narrow'] as const) {
    for (const theme of ['light', 'dark'] as const) {
      const page = await b.page({ device, theme })
      await page.goto('/screen')
      await page.getByLabel('Service key').waitFor()
      await checkAxe(page, `form, ${device} ${theme}`)
      await show(page, s)
      await checkAxe(page, `code, ${device} ${theme}`)
      for (const button of ['How to check in', 'Find a seat']) {
        await page.getByRole('button', { name: button }).click()
        await checkAxe(page, `${button}, ${device} ${theme}`)
        const width = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth])
        assert.ok((width[0] ?? 0) <= (width[1] ?? 0), `${button} is ${width[0]} wide on ${device}`)
      }
    }
  }
})
