// Runs alone: it stops processes of the stack.
import assert from 'node:assert/strict'
import { text } from './harness/texts.ts'
import {
  ApiError,
  book,
  inMinutes,
  newBranch,
  newStudent,
  ok,
  type Branch,
  type Person,
} from './harness/api.ts'
import { test, type Page } from './harness/browser.ts'
import { checkOverflow } from './harness/layout.ts'
import { kill, replicas, restart } from './harness/stack.ts'
import { idle } from './harness/steps.ts'
import { until } from './harness/until.ts'

function seatOf(branch: Branch, index: number): string {
  const seat = branch.seats[index]
  assert.ok(seat !== undefined)
  return seat.id
}

/** row returns the row of a seat in the list of the page Now. */
function row(page: Page, branch: Branch, index: number): ReturnType<Page['locator']> {
  return page.locator(`.seat-list [data-id="${seatOf(branch, index)}"]`)
}

/** bookAgain books a seat as a client does that repeats a call without an answer. */
async function bookAgain(person: Person, seatId: string): Promise<void> {
  const body = { seatId, endTime: inMinutes(60), requestId: `again-${seatId}` }
  await until(async () => {
    try {
      await ok(person.api.POST('/v1/reservations', { body }))
    } catch (e) {
      if (e instanceof ApiError && e.status < 500) throw new Error(`unexpected: ${e.message}`)
      throw e
    }
  }, 30_000)
}

test('a page stays live while each replica is killed in turn', async (b) => {
  const branch = await newBranch({ seats: 8 })
  const page = await b.page({ as: await newStudent(), faults: true })
  await page.goto(`/?branch=${branch.code}`)
  await row(page, branch, 0).waitFor()
  for (const [i, replica] of replicas.entries()) {
    const other = await newStudent()
    const back = kill(replica)
    await bookAgain(other, seatOf(branch, i))
    // The page may have lost its stream, and must not need a reload.
    await row(page, branch, i).and(page.locator('.taken')).waitFor({ timeout: 15_000 })
    await back()
  }
  await page.locator('.banner').waitFor({ state: 'detached' })
  await row(page, branch, 7).and(page.locator('.free')).waitFor()
})

test('a booking succeeds once although the replica is killed under it', async (b) => {
  const branch = await newBranch({ seats: 2 })
  const student = await newStudent()
  const page = await b.page({ as: student, faults: true })
  await page.goto(`/?branch=${branch.code}&seat=${seatOf(branch, 0)}`)
  const button = page.getByRole('dialog').getByRole('button', { name: /^Book until/ })
  await button.waitFor()
  const back = replicas.map((r) => kill(r))
  await button.click()
  await page
    .getByRole('dialog')
    .getByText(/is yours until/)
    .first()
    .waitFor({ timeout: 30_000 })
  const { reservations } = await ok(student.api.GET('/v1/reservations'))
  assert.equal(reservations.length, 1)
  for (const f of back) await f()
})

test('a page goes on after a restart of nginx', async (b) => {
  const branch = await newBranch({ seats: 3 })
  const page = await b.page({ as: await newStudent(), faults: true })
  await page.goto(`/?branch=${branch.code}`)
  await row(page, branch, 0).waitFor()
  await restart('nginx')
  await bookAgain(await newStudent(), seatOf(branch, 1))
  await row(page, branch, 1).and(page.locator('.taken')).waitFor({ timeout: 30_000 })
})

for (const hours of [-1, 1]) {
  test(`the clock of the device does not matter: ${hours} h`, async (b) => {
    const branch = await newBranch({ seats: 2 })
    const student = await newStudent()
    // A clock that is wrong from the start, as the browser of such a device sees it.
    const before = hours < 0 ? behind : ahead
    const page = await b.page({ as: student, before })
    await page.goto(`/?branch=${branch.code}&seat=${seatOf(branch, 0)}`)
    const button = page.getByRole('dialog').getByRole('button', { name: /^Book until/ })
    await button.waitFor()
    const promised = /(\d\d):(\d\d)/.exec((await button.textContent()) ?? '')
    await button.click()
    await page
      .getByRole('dialog')
      .getByText(/is yours until/)
      .first()
      .waitFor()
    const { reservations } = await ok(student.api.GET('/v1/reservations'))
    const end = new Date(reservations[0]?.endTime ?? '')
    const local = end.toLocaleTimeString('en-GB', {
      timeZone: branch.zone,
      hour: '2-digit',
      minute: '2-digit',
    })
    assert.equal(promised?.[0], local)
    assert.ok(end.getTime() > Date.now() && end.getTime() < Date.now() + 12 * 3600_000, `it ends at ${end}`)

    await page.goto('/me')
    const timer = page.locator('section.present').getByRole('timer')
    await timer.waitFor()
    const shown = (await timer.textContent()) ?? ''
    assert.match(shown, /^1[345]:\d\d$/, 'minutes until check-in closes')
  })
}

function ahead(): void {
  const Real = Date
  globalThis.Date = new Proxy(Real, {
    construct: (_, args: []) => (args.length > 0 ? new Real(...args) : new Real(Real.now() + 3600_000)),
    get: (of, name) => (name === 'now' ? () => Real.now() + 3600_000 : Reflect.get(of, name)),
  })
}

function behind(): void {
  const Real = Date
  globalThis.Date = new Proxy(Real, {
    construct: (_, args: []) => (args.length > 0 ? new Real(...args) : new Real(Real.now() - 3600_000)),
    get: (of, name) => (name === 'now' ? () => Real.now() - 3600_000 : Reflect.get(of, name)),
  })
}

test('a page without a network says so, and catches up when the network is back', async (b) => {
  const branch = await newBranch({ seats: 3 })
  const page = await b.page({ as: await newStudent(), faults: true })
  await page.goto(`/?branch=${branch.code}`)
  await row(page, branch, 1).and(page.locator('.free')).waitFor()
  await page.context().setOffline(true)
  await page.evaluate(() => dispatchEvent(new Event('offline')))
  await restart('nginx') // the open streams end: the emulation refuses only new ones
  await page.getByText(text.common.offline).waitFor({ timeout: 30_000 })
  await book(await newStudent(), seatOf(branch, 1))
  await row(page, branch, 1).and(page.locator('.free')).waitFor() // the last known state stays
  await page.context().setOffline(false)
  await row(page, branch, 1).and(page.locator('.taken')).waitFor({ timeout: 15_000 })
  await page.getByText(text.common.offline).waitFor({ state: 'detached' })
})

test('the page starts without a network, with the reservations as of last time', async (b) => {
  const branch = await newBranch({ seats: 2 })
  const student = await newStudent()
  await book(student, seatOf(branch, 0))
  const page = await b.page({ as: student, faults: true })
  await page.goto('/me')
  await page.locator('section.present').waitFor()
  // The worker is active when it has stored the files of the page.
  await page.evaluate(() => navigator.serviceWorker.ready.then(() => undefined))
  await page.reload()
  await page.locator('section.present').waitFor()
  await page.context().setOffline(true)
  await page.reload()
  await page.getByText(/These are your seats as of/).waitFor()
  await page.locator('section.present').getByText(/T-01/).first().waitFor()
  await page.context().setOffline(false)
})

test('two tabs of a user agree', async (b) => {
  const branch = await newBranch({ seats: 2 })
  const student = await newStudent('Tabea Twotabs')
  const first = await b.page({ as: student })
  const second = await first.context().newPage()
  await first.goto(`/?branch=${branch.code}&seat=${seatOf(branch, 0)}`)
  await second.goto('/me')
  await second.getByText(text.me.empty).waitFor()
  await first
    .getByRole('dialog')
    .getByRole('button', { name: /^Book until/ })
    .click()
  await first
    .getByRole('dialog')
    .getByText(/is yours until/)
    .first()
    .waitFor()
  await second.locator('section.present').getByText(/T-01/).first().waitFor()
  await second.goto('/settings')
  await second.getByRole('button', { name: text.account.signOutHere }).click()
  await first
    .getByRole('banner')
    .getByRole('link', { name: text.common.signIn })
    .waitFor({ state: 'attached' })
})

test('back, forward and reload keep the place', async (b) => {
  const branch = await newBranch({ seats: 4, areas: ['Hall', 'Loft'] })
  const page = await b.page({ as: await newStudent(), device: 'phone' })
  await page.goto('/settings')
  await page.goto(`/?branch=${branch.code}`)
  await row(page, branch, 0).click()
  await page.getByRole('dialog').waitFor()
  await page.reload()
  await page.getByRole('dialog').waitFor()
  await page.goBack()
  await page.getByRole('dialog').waitFor({ state: 'detached' })
  await row(page, branch, 0).waitFor()
  await page.getByRole('link', { name: text.common.nav.me }).click()
  await page.getByRole('heading', { name: text.me.title, level: 1 }).waitFor()
  await page.goBack()
  await row(page, branch, 0).waitFor()
  await page.goForward()
  await page.getByRole('heading', { name: text.me.title, level: 1 }).waitFor()
  await page.reload()
  await page.getByRole('heading', { name: text.me.title, level: 1 }).waitFor()
})

test('a name of 100 Arabic characters fits every page', async (b) => {
  const name = 'عبد الرحمن بن محمد الأندلسي '.repeat(4).slice(0, 99) + 'ي'
  assert.equal([...name].length, 100)
  const student = await newStudent(name)
  const branch = await newBranch({ seats: 1, name })
  await book(student, seatOf(branch, 0))
  for (const device of ['narrow', 'phone', 'desktop'] as const) {
    const page = await b.page({ as: student, device })
    for (const path of ['/me', '/settings', `/?branch=${branch.code}`]) {
      await page.goto(path)
      await idle(page)
      await page.getByText(name).first().waitFor()
      await checkOverflow(page)
    }
  }
})
