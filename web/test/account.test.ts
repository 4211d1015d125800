// Sign-in, registration and settings.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { admin, ApiError, book, clientOf, login, newBranch, newStudent, ok } from './harness/api.ts'
import { password, unique, url, visitor } from './harness/api.ts'
import { checkAxe } from './harness/axe.ts'
import { test, type Page } from './harness/browser.ts'
import { until } from './harness/until.ts'

async function signIn(page: Page, studentId: string, secret = password, stay = false): Promise<void> {
  await page.getByLabel('Student number').fill(studentId)
  await page.getByLabel('Password', { exact: true }).fill(secret)
  if (stay) await page.getByLabel('Stay signed in').check()
  await page.getByRole('main').getByRole('button', { name: 'Sign in' }).click()
}

/** fits fails if the page can be scrolled sideways. */
async function fits(page: Page): Promise<void> {
  const [content, window] = await page.evaluate(
    () => [document.documentElement.scrollWidth, innerWidth] as const,
  )
  assert.ok(content <= window, `the page is ${content} px wide, the window ${window}`)
}

/** secrets returns everything that a script of the page, or its history, could read. */
function secrets(page: Page): Promise<string> {
  return page.evaluate(() =>
    JSON.stringify([
      { ...localStorage },
      { ...sessionStorage },
      document.cookie,
      location.href,
      history.state,
    ]),
  )
}

test('a new user sees the rules, registers with a long Arabic name, and is signed in', async (b) => {
  const page = await b.page({ device: 'narrow' })
  const name = 'عبدالرحمن '.repeat(10).trim().padEnd(100, 'ن')
  assert.equal([...name].length, 100)
  await page.goto('/register?next=/settings')
  await page.getByText('At least 8 characters').waitFor()
  await fits(page)

  // Faults show beside the fields, and the first one gets the focus.
  await page.getByLabel('Full name').fill('x'.repeat(101))
  await page.getByRole('button', { name: 'Create an account' }).click()
  await page.getByText('Check the marked fields').waitFor()
  const id = page.getByLabel('Student number')
  await until(async () => assert.ok(await id.evaluate((e) => e === document.activeElement)))
  assert.equal(await page.locator('[aria-invalid]').count(), 4)
  await checkAxe(page, 'register with faults')

  await id.fill(unique('A'))
  await page.getByLabel('Full name').fill(name)
  await page.getByLabel('E-mail address').fill('someone@university.example')
  await page.getByLabel('Password', { exact: true }).fill('👩‍🚀'.repeat(8))
  await page.getByText('The password is too long').waitFor()
  await page.getByLabel('Password', { exact: true }).fill(password)
  await page.getByRole('button', { name: 'Create an account' }).click()
  await page.getByRole('heading', { name: 'Settings' }).waitFor()
  assert.equal(new URL(page.url()).pathname, '/settings')
  await page.locator('dd', { hasText: name }).waitFor()
  await fits(page)
})

test('a student number that is taken says so', async (b) => {
  const student = await newStudent()
  const page = await b.page()
  await page.goto('/register')
  await page.getByLabel('Student number').fill(student.studentId.toLowerCase())
  await page.getByLabel('Full name').fill('Other Person')
  await page.getByLabel('E-mail address').fill('other@university.example')
  await page.getByLabel('Password', { exact: true }).fill('another password')
  await page.getByRole('button', { name: 'Create an account' }).click()
  await page.getByText('This student number is registered already').waitFor()
})

test('a number with the password of its account signs in, says so, and stays on the device', async (b) => {
  const student = await newStudent()
  const page = await b.page({ allow: [/409/] })
  await page.goto('/register')
  await page.getByLabel('Student number').fill(student.studentId)
  await page.getByLabel('Full name').fill('Other Person')
  await page.getByLabel('E-mail address').fill('other@university.example')
  await page.getByLabel('Password', { exact: true }).fill(password)
  await page.getByLabel('Stay signed in').check()
  await page.getByRole('button', { name: 'Create an account' }).click()
  await page.locator('.notice', { hasText: `You are signed in as ${student.name}` }).waitFor()
  assert.equal(await page.getByText('Other Person').count(), 0)
  await page.reload()
  await page.getByRole('link', { name: student.name }).click()
  // The next sign-in removes the notice of the sign-out.
  await page.getByRole('button', { name: 'Sign out here' }).click()
  await page.locator('.notice', { hasText: 'You are signed out' }).waitFor()
  await page.getByRole('main').getByRole('link', { name: 'Sign in' }).click()
  await signIn(page, student.studentId)
  await page.getByRole('link', { name: student.name }).waitFor()
  assert.equal(await page.locator('.notice', { hasText: 'You are signed out' }).count(), 0)
})

test('a wrong password says so, and the right one leads to the wanted page', async (b) => {
  const student = await newStudent()
  const page = await b.page()
  await page.goto('/login?next=%2Fme%3Fx%3D1')
  await signIn(page, student.studentId, 'wrong password')
  await page.getByText('The student number or the password is wrong').waitFor()
  await signIn(page, student.studentId)
  await page.waitForURL('**/me?x=1')
  await page.getByRole('heading', { name: 'My seats' }).waitFor()
  assert.ok(!(await secrets(page)).includes('eyJ'), 'a token is in the storage or the address')
  // A user who is signed in does not sign in again.
  await page.evaluate(() => history.pushState(null, '', '/login?next=/settings'))
  await page.evaluate(() => dispatchEvent(new PopStateEvent('popstate')))
  await page.getByRole('heading', { name: 'Settings' }).waitFor()
})

test('the sign-in leads to no other origin', async (b) => {
  const student = await newStudent()
  const addresses = [
    'https://evil.example/',
    '//evil.example',
    '/\\evil.example',
    '/\t/evil.example',
    '/.//evil.example',
    'javascript:alert(1)',
    '/v1/branches',
  ]
  for (const next of addresses) {
    const page = await b.page()
    await page.goto(`/login?next=${encodeURIComponent(next)}`)
    await signIn(page, student.studentId)
    await page.getByRole('link', { name: student.name }).waitFor()
    await until(() => assert.equal(page.url(), `${url}/`, next))
    await page.close()
  }
})

test('staying signed in is off by default, and survives a reload when it is on', async (b) => {
  const student = await newStudent()
  const page = await b.page()
  await page.goto('/login')
  assert.equal(await page.getByLabel('Stay signed in').isChecked(), false)
  await signIn(page, student.studentId)
  await page.getByRole('link', { name: student.name }).waitFor()
  await page.reload()
  await page.getByRole('link', { name: 'Sign in' }).first().waitFor()
  assert.equal((await page.context().cookies()).length, 0)

  await page.goto('/login')
  await signIn(page, student.studentId, password, true)
  await page.getByRole('link', { name: student.name }).waitFor()
  const cookies = await page.context().cookies()
  assert.deepEqual(
    cookies.map((c) => [c.httpOnly, c.sameSite]),
    [[true, 'Strict']],
  )
  await page.reload()
  await page.getByRole('link', { name: student.name }).waitFor()
  assert.ok(!(await secrets(page)).includes('eyJ'), 'a token is in the storage or the address')
})

test('without a secure connection the page says that the session ends with it', async (b) => {
  const student = await newStudent()
  const page = await b.page({
    arguments: ['--host-resolver-rules=MAP library.test 127.0.0.1'],
    allow: [/Cross-Origin-Opener-Policy header has been ignored/],
  })
  await page.goto(url.replace('127.0.0.1', 'library.test') + '/login?next=/settings')
  await page.getByText('This page has no secure connection').waitFor()
  assert.equal(await page.getByLabel('Stay signed in').count(), 0)
  await signIn(page, student.studentId)
  await page.getByRole('heading', { name: 'Change the password' }).waitFor()
  await page.getByRole('link', { name: 'Scan' }).click()
  await page.getByRole('button', { name: 'Open the camera' }).click()
  await page.getByText('so the browser does not give it the camera').waitFor()
})

test('a change of the password keeps this session and ends the others', async (b) => {
  const student = await newStudent()
  const here = await b.page({ as: student })
  const elsewhere = await b.page({ as: student })
  await elsewhere.goto('/me')
  await elsewhere.getByText('You have no reservation', { exact: false }).first().waitFor()
  await here.goto('/settings')
  await here.getByLabel('Present password', { exact: true }).fill('wrong password')
  await here.getByLabel('New password', { exact: true }).fill(password + '4')
  await here.getByRole('button', { name: 'Change the password' }).click()
  await here.getByText('This is not your present password').waitFor()
  await here.getByLabel('Present password', { exact: true }).fill(password)
  await here.getByRole('button', { name: 'Change the password' }).click()
  await here.getByText('The password is changed').first().waitFor()

  await elsewhere.getByText('You were signed out').waitFor()
  await assert.rejects(login(student.studentId), (e: ApiError) => e.reason === 'BAD_CREDENTIALS')
  const again = await login(student.studentId, password + '4')

  // The session goes on here, also after a reload, and its notifications arrive.
  await here.getByRole('link', { name: 'My seats' }).click()
  await here.getByText('You have no reservation.').waitFor()
  const branch = await newBranch({ seats: 1 })
  await book(again, branch.seats[0]?.id ?? '')
  const staff = await admin()
  const { reservations } = await ok(again.api.GET('/v1/reservations'))
  const params = { path: { reservationId: reservations[0]?.id ?? '' } }
  await ok(
    staff.api.POST('/v1/desk/reservations/{reservationId}:checkIn', { params, body: { reason: 'test' } }),
  )
  await here.getByText('Checked in', { exact: true }).waitFor()
  await here.reload()
  await here.getByRole('link', { name: student.name }).waitFor()
  assert.equal(await here.getByText('You were signed out').count(), 0)
})

test('signing out everywhere ends the session of another device', async (b) => {
  const student = await newStudent()
  const here = await b.page({ as: student })
  const elsewhere = await b.page({ as: student, device: 'phone' })
  await elsewhere.goto('/me')
  await elsewhere.getByText('You have no reservation.').waitFor()
  await here.goto('/settings')
  await here.getByRole('button', { name: 'Sign out on all devices' }).click()
  await here.getByRole('dialog').getByRole('button', { name: 'Sign out on all devices' }).click()
  await here.getByText('You are signed out on all devices').first().waitFor()
  await elsewhere.getByText('You were signed out').waitFor()
  await assert.rejects(ok(student.api.GET('/v1/standing')), (e: ApiError) => e.reason === 'TOKEN_REVOKED')
  assert.equal(await here.evaluate(() => localStorage.getItem('dlsms.stay')), null)
})

test('signing out here ends the session in the other tab, and the token', async (b) => {
  const student = await newStudent()
  const one = await b.page({ as: student })
  const two = await one.context().newPage()
  for (const page of [one, two]) {
    await page.goto('/settings')
    await page.getByRole('button', { name: 'Sign out here' }).waitFor()
  }
  await one.getByRole('button', { name: 'Sign out here' }).click()
  for (const page of [one, two]) await page.getByText('Sign in to see your account').waitFor()
  assert.deepEqual(await one.context().cookies(), [])
  // The other tab learns it from this one, not from an error.
  assert.equal(await two.getByText('You were signed out').count(), 0)
  await until(async () => {
    await assert.rejects(
      ok(clientOf(student.token).GET('/v1/standing')),
      (e: ApiError) => e.reason === 'TOKEN_REVOKED',
    )
  })
})

test('a token that is revoked elsewhere ends the session under an open page', async (b) => {
  const student = await newStudent()
  const page = await b.page({ as: student })
  await page.goto('/me')
  await page.getByText('You have no reservation.').waitFor()
  await ok(student.api.POST('/v1/auth/logout', { body: { everywhere: false } }))
  const banner = page.getByRole('alert').filter({ hasText: 'You were signed out' })
  await banner.waitFor()
  await banner.getByRole('link', { name: 'Sign in' }).click()
  await signIn(page, student.studentId)
  await page.getByText('You have no reservation.').waitFor()
  assert.equal(new URL(page.url()).pathname, '/me')
})

test('the export is a file with the data of the user', async (b) => {
  const student = await newStudent('Ada Export')
  const page = await b.page({ as: student })
  await page.goto('/settings')
  const saved = page.waitForEvent('download')
  await page.getByRole('button', { name: 'Download my data' }).click()
  const file = await saved
  assert.equal(file.suggestedFilename(), `library-${student.studentId}.json`)
  const text = readFileSync(await file.path(), 'utf8')
  assert.ok(JSON.stringify(JSON.parse(text)).includes('Ada Export'))
  await page.getByText('The file is saved').first().waitFor()
})

test('an account is closed with the password', async (b) => {
  const student = await newStudent()
  const branch = await newBranch({ seats: 1 })
  await book(student, branch.seats[0]?.id ?? '')
  const page = await b.page({ as: student, device: 'phone' })
  await page.goto('/settings')
  await page.getByRole('button', { name: 'Close the account' }).click()
  const dialog = page.getByRole('dialog')
  await dialog.getByText('Your reservations are cancelled').waitFor()
  await checkAxe(page, 'dialog to close the account')
  await dialog.getByLabel('Password', { exact: true }).fill('wrong password')
  await dialog.getByRole('button', { name: 'Close the account for good' }).click()
  await dialog.getByText('This is not your present password').waitFor()
  await dialog.getByLabel('Password', { exact: true }).fill(password)
  await dialog.getByRole('button', { name: 'Close the account for good' }).click()
  await page.waitForURL(`${url}/`)
  await page.getByText('Your account is closed').first().waitFor()
  await assert.rejects(login(student.studentId), (e: ApiError) => e.reason === 'BAD_CREDENTIALS')
  const { seats } = await ok(visitor.GET('/v1/seats', { params: { query: { branch: branch.code } } }))
  assert.equal(seats[0]?.available, true)
})

test('a visitor chooses a language and colours, and the device keeps them', async (b) => {
  const page = await b.page({ theme: 'light' })
  await page.goto('/settings')
  await page.getByRole('button', { name: 'Dark' }).click()
  await page.getByRole('button', { name: 'Deutsch' }).click()
  await page.getByRole('heading', { name: 'Einstellungen' }).waitFor()
  await page.reload()
  await page.getByRole('heading', { name: 'Einstellungen' }).waitFor()
  assert.equal(await page.evaluate(() => document.documentElement.lang), 'de')
  assert.equal(await page.evaluate(() => getComputedStyle(document.documentElement).colorScheme), 'dark')
  await page.getByRole('button', { name: '中文' }).click()
  await page.getByRole('heading', { name: '设置' }).waitFor()
})

test('the pages of the account have no violation of axe, and fit 320 px', async (b) => {
  const student = await newStudent('Wolfeschlegelsteinhausenbergerdorff'.repeat(2))
  const all = [
    { device: 'narrow', theme: 'dark', language: 'de' },
    { device: 'desktop' },
    { device: 'phone', language: 'zh' },
  ] as const
  for (const options of all) {
    const page = await b.page({ ...options, as: student })
    await page.goto('/settings')
    await page.locator('#close-account').waitFor()
    await fits(page)
    await checkAxe(page, `settings ${options.device}`)
    await page.context().clearCookies()
    await page.evaluate(() => localStorage.clear())
    for (const path of ['/login', '/register']) {
      await page.goto(path)
      await page.locator('form').waitFor()
      await fits(page)
      await checkAxe(page, `${path} ${options.device}`)
    }
  }
})
