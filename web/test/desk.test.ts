import assert from 'node:assert/strict'
import {
  admin,
  book,
  newBranch,
  newStaff,
  newStudent,
  ok,
  unique,
  type Branch,
  type Person,
  type Schema,
} from './harness/api.ts'
import { checkAxe } from './harness/axe.ts'
import { test, type Page } from './harness/browser.ts'
import { until } from './harness/until.ts'

async function search(page: Page, text: string): Promise<void> {
  await page.getByRole('searchbox', { name: 'Find a person' }).fill(text)
  await page.keyboard.press('Enter')
}

/** swipe types as a card reader does: quickly, with Enter at the end. It does not wait between the keys. */
async function swipe(page: Page, card: string): Promise<void> {
  await Promise.all([...card, 'Enter'].map((key) => page.keyboard.press(key)))
}

/** person opens the page of a person by the student id. */
async function person(page: Page, p: Person): Promise<void> {
  await page.goto('/desk')
  await search(page, p.studentId)
  await page.getByRole('heading', { level: 1, name: p.name }).waitFor()
}

/** reservationOf returns a reservation as its user sees it. */
async function reservationOf(p: Person, id: string): Promise<Schema<'Reservation'>> {
  const { reservation } = await ok(
    p.api.GET('/v1/reservations/{reservationId}', { params: { path: { reservationId: id } } }),
  )
  assert.ok(reservation)
  return reservation
}

/** hears checks that the user has got a notification with a reason. */
async function hears(p: Person, kind: string, reason: string): Promise<void> {
  const { notifications } = await ok(p.api.GET('/v1/notifications'))
  assert.ok(
    notifications.some((n) => n.kind === kind && JSON.stringify(n).includes(reason)),
    JSON.stringify(notifications),
  )
}

/** strike gives a student a strike and a suspension in a branch, by a no-show. */
async function strike(branch: Branch, student: Person, seat = 0): Promise<void> {
  const { api } = await admin()
  const rules = { strikeLimit: 1, strikeDays: 30, suspensionDays: [7], grace: '0s' }
  await ok(api.POST('/v1/admin/policies', { body: { policy: { branch: branch.code, rules } } }))
  await book(student, branch.seats[seat]?.id ?? '')
  await until(async () => {
    const standing = await ok(student.api.GET('/v1/standing'))
    assert.equal(standing.strikes.length, 1)
    assert.ok(standing.suspendedUntil)
  }, 60_000)
}

test('the search finds a person by student number, card, e-mail and name, and by a card reader', async (b) => {
  const branch = await newBranch()
  const student = await newStudent(`Noor ${unique('N')}`)
  const card = String(Date.now()) + String(Math.floor(Math.random() * 1000))
  const { api } = await admin()
  await ok(api.POST('/v1/admin/users', { body: { users: [{ studentId: student.studentId, card }] } }))
  const page = await b.page({ as: await newStaff('ROLE_LIBRARIAN', [branch.code]) })
  const kinds = [
    student.studentId.toLowerCase(),
    card,
    `${student.studentId}@university.example`,
    student.name.toUpperCase(),
  ]
  for (const text of kinds) {
    await page.goto('/desk')
    await search(page, text)
    await page.getByRole('heading', { level: 1, name: student.name }).waitFor()
  }
  // A card reader types quickly and presses Enter, wherever the focus is. It must not press the button.
  await page.getByRole('button', { name: 'Reserve a seat' }).focus()
  await swipe(page, '99999999')
  await page.getByText('No person was found for “99999999”').waitFor()
  assert.equal(await page.getByRole('dialog').count(), 0)
  await page.goto('/desk')
  await page.getByRole('button', { name: 'Reload' }).focus()
  await swipe(page, card)
  await page.getByRole('heading', { level: 1, name: student.name }).waitFor()
})

test('several people: the results are used by keyboard', async (b) => {
  const branch = await newBranch()
  const family = unique('Family')
  const names = [`Ada ${family}`, `Ben ${family}`]
  for (const name of names) await newStudent(name)
  const page = await b.page({ as: await newStaff('ROLE_LIBRARIAN', [branch.code]) })
  await page.goto('/desk')
  await search(page, family)
  await page.getByRole('link', { name: names[1] ?? '' }).waitFor()
  await page.keyboard.press('ArrowDown')
  await page.keyboard.press('ArrowDown')
  const chosen = (await page.evaluate(() => document.activeElement?.textContent)) ?? ''
  assert.equal(chosen, await page.getByRole('search').getByRole('link').nth(1).textContent())
  await page.keyboard.press('Enter')
  await until(async () => {
    const heading = await page.getByRole('heading', { level: 1 }).textContent()
    assert.ok(heading !== null && chosen.startsWith(heading.trim()), `${heading} is not ${chosen}`)
  })
})

test('staff of the desk cannot search by name, and are told so', async (b) => {
  const branch = await newBranch()
  const page = await b.page({ as: await newStaff('ROLE_STAFF', [branch.code]) })
  await page.goto('/desk')
  await search(page, 'Ada Okafor')
  await page.getByText('only librarians can search by name').waitFor()
  assert.equal(await page.getByRole('button', { name: 'Forgive strikes of a span' }).count(), 0)
})

test('the list of the day is live, and one tap checks a person in and out', async (b) => {
  const branch = await newBranch()
  const student = await newStudent(`Ada ${unique('L')}`)
  const page = await b.page({ as: await newStaff('ROLE_STAFF', [branch.code]), device: 'phone' })
  await page.goto('/desk')
  await page.getByText('There are no reservations.').waitFor()
  const { id } = await book(student, branch.seats[1]?.id ?? '')
  const row = page.getByRole('listitem').filter({ hasText: student.name })
  await row.getByText('T-02').waitFor()
  await row.getByRole('button', { name: 'Check in' }).click()
  await row.getByText(/^checked in at/).waitFor()
  assert.equal((await reservationOf(student, id)).proof, 'PROOF_DESK')
  await hears(student, 'NOTIFICATION_KIND_CHECKED_IN_BY_LIBRARY', 'Checked in at the desk')
  await row.getByRole('button', { name: 'Check out' }).click()
  await row.getByText(/^left at/).waitFor()
  assert.equal((await reservationOf(student, id)).status, 'RESERVATION_STATUS_COMPLETED')

  const other = await newStudent(`Ben ${unique('L')}`)
  const second = await book(other, branch.seats[2]?.id ?? '', { start: 60 })
  const later = page.getByRole('listitem').filter({ hasText: other.name })
  await later.getByText('expected').waitFor()
  await later.getByText(/check-in from/).waitFor()
  const at = { params: { path: { reservationId: second.id } } }
  await ok(other.api.POST('/v1/reservations/{reservationId}:cancel', { ...at, body: {} }))
  await later.waitFor({ state: 'detached' })

  const third = await book(other, branch.seats[3]?.id ?? '')
  await later.getByRole('button', { name: 'Check in' }).waitFor()
  await ok(
    other.api.POST('/v1/reservations/{reservationId}:checkIn', {
      params: { path: { reservationId: third.id } },
      body: {},
    }),
  )
  await later.getByText(/^checked in at/).waitFor()
})

test('staff reserve for a person, check in and out, and cancel', async (b) => {
  const branch = await newBranch({ seats: 20 })
  const student = await newStudent(`Ada ${unique('B')}`)
  await book(await newStudent(), branch.seats[6]?.id ?? '')
  const page = await b.page({ as: await newStaff('ROLE_STAFF', [branch.code]) })
  await person(page, student)

  await page.getByRole('button', { name: 'Reserve a seat' }).click()
  const sheet = page.getByRole('dialog', { name: `Reserve for ${student.name}` })
  await sheet.getByText('19 seats are free at that time').waitFor()
  await sheet.getByRole('searchbox').fill('t07')
  await sheet.getByText(/free from/).waitFor()
  assert.ok(await sheet.getByRole('radio').isDisabled())
  await sheet.getByRole('searchbox').fill('t08')
  await page.keyboard.press('Enter')
  await sheet.getByRole('button', { name: '1 hour' }).click()
  await sheet.getByLabel('Reason').fill('asked by phone')
  await sheet.getByRole('button', { name: 'Reserve T-08' }).click()
  await sheet.waitFor({ state: 'detached' })
  await page.getByRole('listitem').filter({ hasText: 'T-08' }).first().waitFor()
  await hears(student, 'NOTIFICATION_KIND_RESERVED_BY_LIBRARY', 'asked by phone')
  const first = (await ok(student.api.GET('/v1/reservations'))).reservations[0]
  assert.equal(first?.seat?.label, 'T-08')
  assert.equal(
    Math.round((Date.parse(first.endTime ?? '') - Date.parse(first.startTime ?? '')) / 3_600_000),
    1,
  )

  // A second reservation at that time is refused, with the next step.
  await page.getByRole('button', { name: 'Reserve a seat' }).click()
  await sheet.getByRole('radio', { name: 'T-01' }).check()
  await sheet.getByRole('button', { name: 'Reserve T-01' }).click()
  await sheet.getByText('The person has another reservation at that time').waitFor()
  await page.keyboard.press('Escape')

  await page.getByRole('button', { name: 'Check in', exact: true }).click()
  await page.getByRole('dialog').getByLabel('Reason').fill('the phone is broken')
  await page.getByRole('dialog').getByRole('button', { name: 'Check in' }).click()
  await page.getByText(/^checked in at/).waitFor()
  await hears(student, 'NOTIFICATION_KIND_CHECKED_IN_BY_LIBRARY', 'the phone is broken')
  await page.getByRole('button', { name: 'Check out' }).click()
  await page.getByRole('dialog').getByRole('button', { name: 'Check out' }).click()
  await page.getByText('No current reservation').waitFor()
  assert.equal((await reservationOf(student, first.id)).status, 'RESERVATION_STATUS_COMPLETED')

  const second = await book(student, branch.seats[3]?.id ?? '', { start: 120 })
  await page.getByRole('button', { name: 'Cancel the reservation' }).click()
  const question = page.getByRole('dialog', { name: 'Cancel the reservation' })
  await question.getByText('becomes free for others').waitFor()
  await question.getByLabel('Reason').fill('the student called')
  await question.getByRole('button', { name: 'Cancel the reservation' }).click()
  await page.getByText('No current reservation').waitFor()
  assert.equal((await reservationOf(student, second.id)).status, 'RESERVATION_STATUS_CANCELLED')
  await hears(student, 'NOTIFICATION_KIND_CANCELLED_BY_LIBRARY', 'the student called')
})

test('staff reserve a seat for a later time', async (b) => {
  const branch = await newBranch()
  const student = await newStudent()
  const page = await b.page({ as: await newStaff('ROLE_STAFF', [branch.code]) })
  await person(page, student)
  await page.getByRole('button', { name: 'Reserve a seat' }).click()
  const sheet = page.getByRole('dialog')
  await sheet.getByRole('button', { name: 'Later' }).click()
  const date = new Date(Date.now() + 2 * 86_400_000).toISOString().slice(0, 10)
  await sheet.getByLabel('Date').fill(date)
  await sheet.getByLabel('Start').fill('14:30')
  await sheet.getByRole('radio', { name: 'T-02' }).check()
  await sheet.getByRole('button', { name: 'Reserve T-02' }).click()
  await sheet.waitFor({ state: 'detached' })
  const { reservations } = await ok(student.api.GET('/v1/reservations'))
  // The branch is in Berlin, the browser in New York.
  assert.equal(reservations[0]?.startTime, new Date(`${date}T13:30:00Z`).toISOString().replace('.000', ''))
})

test('a librarian forgives a strike, and the strikes of a span; the suspensions end', async (b) => {
  const branch = await newBranch()
  const one = await newStudent(`Ada ${unique('S')}`)
  const two = await newStudent(`Ben ${unique('S')}`)
  await strike(branch, one, 0)
  await strike(branch, two, 1)
  const page = await b.page({ as: await newStaff('ROLE_LIBRARIAN', [branch.code]) })
  await person(page, one)
  await page.getByText(/^Suspended until/).waitFor()
  await page.getByRole('button', { name: 'Forgive' }).click()
  await page.getByRole('dialog').getByLabel('Reason').fill('was at the doctor')
  await page.getByRole('dialog').getByRole('button', { name: 'Forgive' }).click()
  await page.getByText(/^forgiven on .*: was at the doctor/).waitFor()
  await page.getByText(/^Suspended until/).waitFor({ state: 'detached' })
  assert.equal((await ok(one.api.GET('/v1/standing'))).suspendedUntil, undefined)

  await page.goto('/desk')
  await page.getByRole('button', { name: 'Forgive strikes of a span' }).click()
  const dialog = page.getByRole('dialog')
  await dialog.getByLabel('Reason').fill('the scanner was out of order')
  await dialog.getByRole('button', { name: 'Preview' }).click()
  await dialog.getByText('1 strike is forgiven, 1 suspension ends.').waitFor()
  assert.ok((await ok(two.api.GET('/v1/standing'))).suspendedUntil, 'the preview has changed something')
  await dialog.getByRole('button', { name: 'Forgive' }).click()
  await dialog.waitFor({ state: 'detached' })
  assert.equal((await ok(two.api.GET('/v1/standing'))).suspendedUntil, undefined)
})

test('a librarian suspends a person and ends the suspension; an admin closes the account', async (b) => {
  const branch = await newBranch()
  const student = await newStudent()
  await book(student, branch.seats[0]?.id ?? '', { start: 60 })
  const page = await b.page({ as: await newStaff('ROLE_LIBRARIAN', [branch.code]) })
  await person(page, student)
  assert.equal(await page.getByRole('button', { name: 'Close the account' }).count(), 0)
  await page.getByRole('button', { name: 'Suspend' }).click()
  await page.getByRole('dialog').getByLabel('Reason').fill('sold reservations')
  await page.getByRole('dialog').getByRole('button', { name: 'Suspend' }).click()
  await page
    .getByRole('heading', { level: 1 })
    .getByText(/^Suspended until/)
    .waitFor()
  const { suspendedUntil } = await ok(student.api.GET('/v1/standing'))
  const days = (Date.parse(suspendedUntil ?? '') - Date.now()) / 86_400_000
  assert.ok(days > 7 && days <= 8, String(days))
  await page.getByRole('button', { name: 'End the suspension' }).click()
  await page.getByRole('dialog').getByRole('button', { name: 'End the suspension' }).click()
  await page
    .getByRole('heading', { level: 1 })
    .getByText(/^Suspended until/)
    .waitFor({ state: 'detached' })
  assert.equal((await ok(student.api.GET('/v1/standing'))).suspendedUntil, undefined)

  const office = await b.page({ as: await newStaff('ROLE_ADMIN') })
  await person(office, student)
  await office.getByRole('button', { name: 'Close the account' }).click()
  const question = office.getByRole('dialog', { name: 'Close the account' })
  await question.getByText('1 reservation ends, 0 waitlist entries end').waitFor()
  await ok(student.api.GET('/v1/standing')) // the preview has closed nothing
  await question.getByLabel('Reason').fill('left the university')
  await question.getByRole('button', { name: 'Close the account' }).click()
  await office.getByText('This account was closed on').waitFor()
  assert.equal(await office.getByRole('button', { name: 'Reserve a seat' }).count(), 0)
  await assert.rejects(ok(student.api.GET('/v1/standing')))
})

test('staff of another branch see a clear refusal, students and visitors no desk', async (b) => {
  const own = await newBranch()
  const other = await newBranch({ name: 'Other Library' })
  const student = await newStudent()
  await book(student, other.seats[0]?.id ?? '')
  const page = await b.page({ as: await newStaff('ROLE_STAFF', [own.code]) })
  await page.goto(`/desk?branch=${other.code}`)
  await page.getByText('Your role does not include Other Library').waitFor()
  assert.equal(await page.getByText(student.name).count(), 0)
  await page.getByLabel('Branch').selectOption(own.name)
  await page.getByText('There are no reservations.').waitFor()
  await person(page, student)
  await page.getByText('No current reservation in your branches.').waitFor()
  const visitor = await b.page()
  await visitor.goto('/desk')
  await visitor.getByRole('main').getByRole('link', { name: 'Sign in' }).waitFor()
  const pupil = await b.page({ as: student })
  await pupil.goto('/desk')
  await pupil.getByText('This page is for the staff of the library.').waitFor()
})

test('names are text: markup, Arabic, and 100 characters', async (b) => {
  const branch = await newBranch()
  const names = [
    '<img src=x onerror=alert(1)><b id="x">M</b>',
    'عبد الرحمن '.repeat(9).trim(),
    'Wörterbuch'.repeat(10),
  ]
  const page = await b.page({ as: await newStaff('ROLE_LIBRARIAN', [branch.code]), device: 'phone' })
  page.on('dialog', () => assert.fail('a script has run'))
  for (const [i, name] of names.entries()) {
    const student = await newStudent(name)
    await book(student, branch.seats[i]?.id ?? '')
    await page.goto('/desk')
    await page.getByRole('link', { name }).waitFor()
    await person(page, student)
    await page.getByRole('button', { name: 'Check in', exact: true }).click()
    await page.getByRole('dialog').getByRole('heading', { name }).waitFor()
    assert.equal(await page.locator('#x, main img').count(), 0)
    const [width, room] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth])
    assert.ok((width ?? 0) <= (room ?? 0), `${name}: ${width} is wider than ${room}`)
  }
})

test('the desk has no violation of axe and fits 320 pixels', async (b) => {
  const branch = await newBranch({ seats: 20 })
  const student = await newStudent()
  await strike(branch, student)
  await book(await newStudent(), branch.seats[1]?.id ?? '', { start: 30 })
  const staff = await newStaff('ROLE_ADMIN')
  for (const device of ['desktop', 'phone', 'narrow'] as const) {
    for (const theme of ['light', 'dark'] as const) {
      const page = await b.page({ as: staff, device, theme })
      const check = async (where: string): Promise<void> => {
        await checkAxe(page, `${where}, ${device} ${theme}`)
        const [width, room] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth])
        assert.ok((width ?? 0) <= (room ?? 0), `${where}: ${width} is wider than ${room}`)
      }
      await page.goto(`/desk?branch=${branch.code}`)
      await page.getByRole('listitem').filter({ hasText: 'T-02' }).waitFor()
      await check('the day')
      await search(page, student.studentId)
      await page.getByRole('heading', { level: 1, name: student.name }).waitFor()
      await check('a person')
      for (const button of ['Reserve a seat', 'Change the suspension', 'Close the account']) {
        await page.getByRole('button', { name: button }).click()
        await page.getByRole('dialog').waitFor()
        await check(button)
        await page.keyboard.press('Escape')
        await page.getByRole('dialog').waitFor({ state: 'detached' })
      }
    }
  }
})
