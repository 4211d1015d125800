// Other users of the same computer, and a network that answers in place of the library.
import assert from 'node:assert/strict'
import { text } from './harness/texts.ts'
import { book, newBranch, newStudent, ok, type Person } from './harness/api.ts'
import { test, type Page } from './harness/browser.ts'
import { signIn } from './harness/steps.ts'
import { until } from './harness/until.ts'
import { parseUsers } from '../src/pages/admin/people/csv.ts'

/** enter signs in on the open page, without loading it again. */
async function enter(page: Page, person: Person, stay = false): Promise<void> {
  await page.getByLabel(text.account.studentId).fill(person.studentId)
  await page.getByLabel(text.account.password, { exact: true }).fill(person.password)
  if (stay) await page.getByLabel(text.account.stay).check()
  await page.getByRole('main').getByRole('button', { name: text.common.signIn }).click()
  await page.getByRole('banner').getByRole('link', { name: person.name }).waitFor()
}

/** kept returns what the device keeps about a user. */
function kept(page: Page): Promise<(string | null)[]> {
  return page.evaluate(() => ['dlsms.mine', 'dlsms.seen'].map((key) => localStorage.getItem(key)))
}

test('the device keeps reservations only of a user who stays signed in', async (b) => {
  const branch = await newBranch({ seats: 1 })
  const student = await newStudent()
  await book(student, branch.seats[0]?.id ?? '')
  const page = await b.page()
  await signIn(page, student, { next: '/me' })
  await page.locator('section.present').waitFor()
  assert.deepEqual(await kept(page), [null, null])

  await signIn(page, student, { next: '/me', stay: true })
  await page.locator('section.present').waitFor()
  await until(async () => {
    for (const value of await kept(page)) assert.ok(value !== null)
  })
})

test('the device shows no reservations after the end of the session, also without a network', async (b) => {
  const branch = await newBranch({ seats: 1 })
  const student = await newStudent()
  await book(student, branch.seats[0]?.id ?? '')
  const page = await b.page({ as: student, faults: true })
  await page.goto('/me')
  await page.locator('section.present').waitFor()
  await page.route('**/v1/**', (route) => route.abort())
  await page.reload()
  await page.locator('section.present').waitFor()

  await page.evaluate(() => {
    const mine = JSON.parse(localStorage.getItem('dlsms.mine') ?? '') as { until: string }
    mine.until = new Date(Date.now() - 1000).toISOString()
    localStorage.setItem('dlsms.mine', JSON.stringify(mine))
  })
  await page.reload()
  await page.getByRole('heading', { name: 'My seats' }).waitFor()
  assert.equal(await page.locator('section.present').count(), 0)
  assert.equal(await page.evaluate(() => localStorage.getItem('dlsms.mine')), null)
})

test('a user who does not stay signed in ends the cookie of the user before', async (b) => {
  const before = await newStudent('Ada Before')
  const next = await newStudent('Ben Next')
  const page = await b.page({ as: before, faults: true })
  await page.route('**/v1/auth/session:resume', (route) => route.abort())
  await page.goto('/login?next=/settings')
  await enter(page, next)
  assert.deepEqual(await page.context().cookies(), [])
  await page.unroute('**/v1/auth/session:resume')
  await page.reload()
  await page.getByRole('banner').getByRole('link', { name: text.common.signIn }).waitFor()
  assert.equal(await page.getByText(before.name).count(), 0)
})

test('a page whose session ends does not become that of another user', async (b) => {
  const one = await newStudent('Ada One')
  const two = await newStudent('Ben Two')
  const page = await b.page()
  await signIn(page, one)
  const other = await page.context().newPage()
  await signIn(other, two, { stay: true })
  await ok(one.api.POST('/v1/auth/logout', { body: { everywhere: true } }))
  const banner = page.getByRole('alert').filter({ hasText: text.common.ended })
  await banner.getByRole('link', { name: text.common.signIn }).click()
  await enter(page, one)
  await other.getByRole('banner').getByRole('link', { name: two.name }).waitFor()
})

test('the request of a user is not sent for the next user of the page', async (b) => {
  const branch = await newBranch({ seats: 2 })
  const one = await newStudent('Ada One')
  const two = await newStudent('Ben Two')
  const [first, second] = branch.seats
  assert.ok(first !== undefined && second !== undefined)
  const page = await b.page({ faults: true })
  await signIn(page, one, { next: `/?branch=${branch.code}&seat=${first.id}` })
  const dialog = page.getByRole('dialog')
  const overloaded = JSON.stringify({ status: 503, reason: 'OVERLOADED' })
  await page.route('**/v1/reservations', (route) =>
    route.request().method() === 'POST'
      ? route.fulfill({
          status: 503,
          contentType: 'application/problem+json',
          headers: { 'Retry-After': '100' },
          body: overloaded,
        })
      : route.continue(),
  )
  await dialog.getByRole('button', { name: /^Book until/ }).click()
  await dialog.getByRole('button', { name: text.now.stopAsking }).waitFor()

  // The first user signs out in another tab, and the second one signs in here.
  const other = await page.context().newPage()
  await other.goto('/settings')
  await other.evaluate(() => new BroadcastChannel('dlsms').postMessage('signed-out'))
  await page.keyboard.press('Escape')
  await page.getByRole('banner').getByRole('link', { name: text.common.signIn }).click()
  await enter(page, two)
  await page.unroute('**/v1/reservations')
  await page.evaluate(() => dispatchEvent(new Event('online'))) // a request that waits is repeated at once

  // Another page of the client, without loading it again.
  await page.evaluate((to) => {
    history.pushState(null, '', to)
    dispatchEvent(new PopStateEvent('popstate'))
  }, `/?branch=${branch.code}&seat=${second.id}`)
  await dialog.getByRole('button', { name: /^Book until/ }).click()
  await dialog
    .getByText(/is yours until/)
    .first()
    .waitFor()
  const { reservations } = await ok(two.api.GET('/v1/reservations'))
  assert.deepEqual(
    reservations.map((r) => r.seat?.id),
    [second.id],
  )
})

test('a network that answers with a page of its own is like no network', async (b) => {
  const branch = await newBranch({ seats: 2 })
  const student = await newStudent()
  const page = await b.page({ as: student, faults: true })
  let streams = 0
  await page.route('**/v1/**', async (route) => {
    if (route.request().url().includes(':watch')) streams++
    await route.fulfill({ contentType: 'text/html', body: '<h1>Welcome to the campus network</h1>' })
  })
  await page.goto('/me')
  await page.getByRole('heading', { name: 'My seats' }).waitFor()
  await page.unroute('**/v1/**')
  await page.evaluate(() => dispatchEvent(new Event('online')))
  await page.getByRole('banner').getByRole('link', { name: student.name }).waitFor()

  // The streams do not ask again and again.
  await page.goto(`/?branch=${branch.code}`)
  await page.locator(`.seat-list [data-id="${branch.seats[0]?.id}"]`).waitFor()
  await page.route('**/v1/seats:watch*', async (route) => {
    streams++
    await route.fulfill({ contentType: 'text/event-stream', body: ': a proxy that ends each answer\n\n' })
  })
  streams = 0
  await page.getByRole('button', { name: text.now.atLater }).click()
  await until(() => assert.ok(streams >= 3), 15_000)
  const since = Date.now()
  const before = streams
  await until(() => assert.ok(Date.now() - since > 3000), 15_000)
  assert.ok(streams - before <= 3, `${streams - before} attempts in 3 seconds`)
})

test('names that objects have of themselves are no columns and no filters', async (b) => {
  assert.deepEqual(
    parseUsers('student id,constructor\nS1,x').faults.map((f) => f.detail),
    ['header'],
  )
  const branch = await newBranch({ seats: 1 })
  const page = await b.page()
  await page.goto(`/?branch=${branch.code}&need=constructor,toString`)
  await page.locator(`.seat-list [data-id="${branch.seats[0]?.id}"]`).waitFor()
})

test('a page whose files a new release has replaced says that it must be loaded again', async (b) => {
  const branch = await newBranch({ seats: 2 })
  const seat = `.seat-list [data-id="${branch.seats[0]?.id}"]`
  const page = await b.page({
    device: 'phone',
    context: { serviceWorkers: 'block' }, // as in a private window
    allow: [/Failed to load resource: .* 404/],
  })
  const replaced = /\/assets\/(map|sheet)-\w+\.js$/
  await page.route(replaced, (route) => route.fulfill({ status: 404 }))
  await page.goto(`/?branch=${branch.code}`)
  await page.locator(seat).waitFor()
  assert.equal(await page.getByText(text.common.failedText).count(), 0)
  await page.locator(seat).click()
  const fault = page.getByRole('alert').filter({ hasText: text.common.failedText })
  await fault.waitFor()
  await page.goBack()
  await fault.waitFor({ state: 'detached' })
  await page.getByRole('button', { name: text.now.map, exact: true }).click()
  await fault.waitFor()
  await page.unroute(replaced)
  await fault.getByRole('button', { name: text.common.reload }).click()
  await page.locator(`svg [data-id="${branch.seats[0]?.id}"]`).waitFor()
})

test('a link with a date that does not exist shows the present state', async (b) => {
  const branch = await newBranch({ seats: 1 })
  const page = await b.page()
  for (const wrong of [
    'date=2026-99-99&start=10:00',
    'date=2026-12-01&start=99:99',
    'date=0000-00-00&start=00:00',
  ]) {
    await page.goto(`/?branch=${branch.code}&${wrong}`)
    await page.locator(`.seat-list [data-id="${branch.seats[0]?.id}"]`).waitFor()
    assert.equal(await page.getByText(text.common.failedTitle).count(), 0)
  }
})
