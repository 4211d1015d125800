import assert from 'node:assert/strict'
import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import decodeQR from 'qr/decode.js'
import { text } from './harness/texts.ts'
import { admin, book, newBranch, newStudent, ok, unique, url, type Branch } from './harness/api.ts'
import { test, type Browsers, type Page } from './harness/browser.ts'
import { film, pixelsOf, setRules } from './harness/codes.ts'
import { signIn } from './harness/steps.ts'

/** wall opens the page /screen of a branch, with a key that an admin has made for it. */
async function wall(b: Browsers, branch: Branch): Promise<Page> {
  const { api } = await admin()
  const params = { path: { branch: branch.code } }
  await ok(api.POST('/v1/admin/branches/{branch}/screens', { params, body: { name: 'Entrance' } }))
  const body = { branch: branch.code, name: unique('screen '), scopes: ['KEY_SCOPE_SCREEN' as const] }
  const { secret } = await ok(api.POST('/v1/admin/keys', { body }))
  const page = await b.page({ context: { viewport: { width: 1080, height: 1080 } } })
  await page.goto('/screen')
  await page.getByLabel('Service key').fill(secret)
  await page.getByRole('button', { name: 'Start the display' }).click()
  await page.getByRole('img', { name: 'QR code' }).waitFor()
  return page
}

async function statusOf(student: Awaited<ReturnType<typeof newStudent>>): Promise<string | undefined> {
  const query = { view: 'RESERVATION_VIEW_ALL' as const }
  const { reservations } = await ok(student.api.GET('/v1/reservations', { params: { query } }))
  return reservations[0]?.status
}

test('a phone reads the code that a screen shows in the other browser, and checks in', async (b) => {
  const branch = await newBranch({ seats: 1 })
  const screen = await wall(b, branch)
  await setRules(branch, { checkIn: 'CHECK_IN_RULE_SCREEN' })
  const student = await newStudent()
  await book(student, branch.seats[0]?.id ?? '')

  const file = join(mkdtempSync(join(tmpdir(), 'dlsms-film-')), 'screen.y4m')
  const phone = await b.page({
    device: 'phone',
    arguments: [
      '--use-fake-ui-for-media-stream',
      '--use-fake-device-for-media-stream',
      `--use-file-for-fake-video-capture=${file}`,
    ],
  })
  await signIn(phone, student, { next: '/me' })
  await phone.getByRole('link', { name: text.me.scanScreen }).click()
  const open = phone.getByRole('button', { name: text.scan.open })
  await open.waitFor()
  await film(screen, file) // what the phone sees from now on
  await open.click()
  await phone.getByText(text.scan.done).first().waitFor()
  assert.equal(await statusOf(student), 'RESERVATION_STATUS_CHECKED_IN')
})

test('a user types the digits that a screen shows in the other browser, and checks in', async (b) => {
  const branch = await newBranch({ seats: 1 })
  const screen = await wall(b, branch)
  await setRules(branch, { checkIn: 'CHECK_IN_RULE_SCREEN' })
  const student = await newStudent()
  await book(student, branch.seats[0]?.id ?? '')
  const phone = await b.page({ as: student, device: 'phone' })
  await phone.goto('/me')
  const field = phone.getByLabel(text.me.digits)
  await field.waitFor()
  const digits = /\b\d{4}\s?\d{4}\b/.exec(await screen.locator('body').innerText())?.[0]
  assert.ok(digits !== undefined, 'the screen shows no digits')
  await field.fill(digits)
  await field.press('Enter')
  await phone.getByText(text.common.status.RESERVATION_STATUS_CHECKED_IN, { exact: true }).first().waitFor()
  assert.equal(await statusOf(student), 'RESERVATION_STATUS_CHECKED_IN')
})

test('the address in the code of a screen leads a visitor through the sign-in to the check-in', async (b) => {
  const branch = await newBranch({ seats: 1 })
  const screen = await wall(b, branch)
  await setRules(branch, { checkIn: 'CHECK_IN_RULE_SCREEN' })
  const student = await newStudent()
  await book(student, branch.seats[0]?.id ?? '')
  const address = await read(screen)
  assert.ok(address.toLowerCase().startsWith(`${url}/c/`), `the code has ${address}`)

  const phone = await b.page({ device: 'phone' })
  await phone.goto(address)
  await phone.getByLabel(text.account.studentId).fill(student.studentId)
  await phone.getByLabel(text.account.password, { exact: true }).fill(student.password)
  await phone.getByRole('main').getByRole('button', { name: text.common.signIn }).click()
  await phone.getByText(text.scan.done).first().waitFor()
  assert.equal(await statusOf(student), 'RESERVATION_STATUS_CHECKED_IN')
  assert.doesNotMatch(phone.url(), /\/c\//i, 'the code stays in the address')
})

/** read returns the text of the QR code on a page, read from its picture. */
async function read(page: Page): Promise<string> {
  return decodeQR(await pixelsOf(page))
}
