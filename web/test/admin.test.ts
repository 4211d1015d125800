import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import {
  admin,
  book,
  inMinutes,
  newBranch,
  newStaff,
  newStudent,
  ok,
  unique,
  visitor,
  type Branch,
} from './harness/api.ts'
import { checkAxe } from './harness/axe.ts'
import { test, type Locator, type Page } from './harness/browser.ts'
import { until } from './harness/until.ts'

const markup = '<img src=x onerror="document.title=1">'

/** section opens a section of a branch. */
async function section(
  page: Page,
  name: string,
  branch: Branch,
  query: Record<string, string> = {},
): Promise<void> {
  const q = new URLSearchParams({ branch: branch.code, ...query })
  await page.goto(`/admin${name === '' ? '' : `/${name}`}?${q}`)
  await page.locator('.section h1').waitFor()
}

/** checkDays returns the button that shows the effect of other hours on some days. */
function checkDays(page: Page): Locator {
  return page
    .locator('section', { hasText: 'Days with other hours' })
    .getByRole('button', { name: 'Check the effect' })
}

/** iso returns the date some days after today in Berlin. */
function iso(days: number): string {
  const today = new Intl.DateTimeFormat('sv-SE', { timeZone: 'Europe/Berlin' }).format(new Date())
  return new Date(Date.parse(today) + days * 86_400_000).toISOString().slice(0, 10)
}

test('closing a branch cancels a reservation, and /me shows it at once', async (b) => {
  const branch = await newBranch({ seats: 2 })
  const student = await newStudent('Mina Example')
  const librarian = await newStaff('ROLE_LIBRARIAN', [branch.code])
  const seat = branch.seats[0]
  assert.ok(seat)
  await book(student, seat.id, { start: 30 })
  const me = await b.page({ as: student, device: 'phone' })
  await me.goto('/me')
  await me.getByText(seat.label).first().waitFor()

  const page = await b.page({ as: librarian })
  await page.goto('/admin')
  await page.getByRole('link', { name: 'Close a room, seats or the branch' }).click()
  await page.getByLabel('The whole branch').check()
  await page.getByRole('button', { name: 'Now, for the rest of today' }).click()
  await page.getByLabel('Until it is lifted').check()
  await page.getByRole('textbox', { name: 'English' }).fill(`Water damage ${markup}`)
  await page.getByRole('button', { name: 'Check the effect' }).click()
  const dialog = page.getByRole('dialog')
  await dialog.getByText('1 reservation is affected.').waitFor()
  await dialog.getByText('Mina Example').waitFor()
  await dialog.getByRole('button', { name: 'Close and cancel 1 reservation' }).click()
  await page.getByText('The closure is made.').first().waitFor()
  const card = page.locator('.closure')
  await card.getByText('1 reservation was cancelled.').waitFor()
  await card.getByText(`Water damage ${markup}`).waitFor()
  await me
    .getByText(/Water damage/)
    .first()
    .waitFor()
  const { reservations } = await ok(student.api.GET('/v1/reservations'))
  assert.equal(reservations.length, 0)

  // A lifted closure frees its seats at once.
  await card.getByRole('button', { name: /^Lift/ }).click()
  await page.getByRole('dialog').getByRole('button', { name: 'Lift' }).click()
  await page.getByText('Nothing is closed').waitFor()
  const { seats } = await ok(visitor.GET('/v1/seats', { params: { query: { branch: branch.code } } }))
  assert.ok(seats.every((s) => s.available))
})

test('a room is closed for tomorrow; another reservation between preview and confirmation is not lost', async (b) => {
  const branch = await newBranch({ seats: 6, areas: ['Quiet Room', 'Hall'] })
  const [first, second] = [await newStudent('Nia One'), await newStudent('Omar Two')]
  const quiet = branch.seats.filter((s) => s.area === 'Quiet Room')
  const hall = branch.seats.filter((s) => s.area === 'Hall')
  const at = (hour: number) => ({
    startTime: `${iso(1)}T${hour}:00:00Z`,
    endTime: `${iso(1)}T${hour + 1}:00:00Z`,
  })
  await ok(first.api.POST('/v1/reservations', { body: { seatId: quiet[0]?.id ?? '', ...at(10) } }))
  await ok(second.api.POST('/v1/reservations', { body: { seatId: hall[0]?.id ?? '', ...at(10) } }))
  const page = await b.page({ as: await newStaff('ROLE_LIBRARIAN', [branch.code]), device: 'phone' })
  await page.goto('/admin')
  await page.getByRole('link', { name: 'Close a room, seats or the branch' }).click()
  await page.getByLabel('Room or area', { exact: true }).selectOption('Quiet Room')
  await page.getByRole('button', { name: 'Tomorrow' }).click()
  await page.getByRole('button', { name: 'Check the effect' }).click()
  const dialog = page.getByRole('dialog')
  await dialog.getByText('1 reservation is affected.').waitFor()
  assert.equal(await dialog.getByText('Omar Two').count(), 0)

  await ok(second.api.POST('/v1/reservations', { body: { seatId: quiet[1]?.id ?? '', ...at(14) } }))
  await dialog.getByRole('button', { name: 'Close and cancel 1 reservation' }).click()
  await dialog.getByText('The reservations have changed since the preview').waitFor()
  await dialog.getByText('2 reservations are affected.').waitFor()
  await dialog.getByText('Omar Two').waitFor()
  const query = { branch: branch.code }
  const { closures } = await ok((await admin()).api.GET('/v1/admin/closures', { params: { query } }))
  assert.equal(closures.length, 0)
  await dialog.getByRole('button', { name: 'Close and cancel 2 reservations' }).click()
  await page.locator('.closure').getByText('2 reservations were cancelled.').waitFor()
  const left = await ok(second.api.GET('/v1/reservations'))
  assert.deepEqual(
    left.reservations.map((r) => r.seat?.area),
    ['Hall'],
  )
})

test('a closure is moved and gets another text; only what differs is sent', async (b) => {
  const branch = await newBranch({ seats: 2 })
  const student = await newStudent('Uma Example')
  const { api } = await admin()
  const start = `${iso(1)}T08:00:30Z` // the form has minutes: seconds stay
  const span = { startTime: start, endTime: `${iso(1)}T10:00:00Z` }
  const body = { branch: branch.code, ...span, onBookings: 'BOOKING_ACTION_CANCEL' as const }
  await ok(api.POST('/v1/admin/closures', { body: { ...body, note: { en: 'Painting', fr: 'Peinture' } } }))
  const later = { startTime: `${iso(1)}T11:00:00Z`, endTime: `${iso(1)}T12:00:00Z` }
  await ok(student.api.POST('/v1/reservations', { body: { seatId: branch.seats[0]?.id ?? '', ...later } }))
  const page = await b.page({ as: await newStaff('ROLE_LIBRARIAN', [branch.code]) })
  await section(page, 'closures', branch)
  await page.getByRole('button', { name: /^Change/ }).click()
  const dialog = page.getByRole('dialog')
  await dialog.getByLabel('To: date').fill(iso(2))
  await dialog.getByRole('textbox', { name: 'English' }).fill('Painting takes longer')
  await dialog.getByRole('button', { name: 'Check the effect' }).click()
  await dialog.getByText('Uma Example').waitFor()
  await dialog.getByRole('button', { name: 'Save closure and cancel 1 reservation' }).click()
  await page.locator('.closure').getByText('1 reservation was cancelled.').waitFor()
  const { closures } = await ok(api.GET('/v1/admin/closures', { params: { query: { branch: branch.code } } }))
  assert.equal(closures[0]?.startTime, start)
  assert.equal(closures[0].endTime?.slice(0, 10), iso(2))
  assert.deepEqual(closures[0].note, { en: 'Painting takes longer', fr: 'Peinture' })
})

test('the week and the days are edited by keyboard alone', async (b) => {
  const branch = await newBranch({ seats: 1 })
  const page = await b.page({ as: await newStaff('ROLE_LIBRARIAN', [branch.code]) })
  await section(page, 'hours', branch)
  const always = page.getByLabel('Always open')
  await always.focus()
  await page.keyboard.press('Space')
  await page.getByRole('button', { name: 'Add hours: Monday' }).focus()
  await page.keyboard.press('Enter')
  await page.getByLabel('Monday opens').focus()
  await page.keyboard.type('0900AM')
  await page.getByLabel('Monday closes').focus()
  await page.keyboard.type('0100AM')
  await page.getByText('(next day)').waitFor()
  await page.getByRole('button', { name: 'Tuesday: same hours as the day before' }).focus()
  await page.keyboard.press('Enter')
  await page
    .locator('section', { hasText: 'Always open' })
    .getByRole('button', { name: 'Check the effect' })
    .focus()
  await page.keyboard.press('Enter')
  await page.getByRole('dialog').getByText('No reservation is affected.').waitFor()
  await page.getByRole('button', { name: 'Save hours' }).focus()
  await page.keyboard.press('Enter')
  await page.getByText('The opening hours are saved.').first().waitFor()
  const stored = async () =>
    (await ok(visitor.GET('/v1/branches'))).branches.find((x) => x.code === branch.code)
  assert.deepEqual((await stored())?.hours, [
    { weekday: 1, opens: '09:00', closes: '01:00' },
    { weekday: 2, opens: '09:00', closes: '01:00' },
  ])

  // In the calendar: two days from today on are closed.
  await page.getByRole('gridcell', { selected: true }).focus()
  await page.keyboard.press('ArrowRight')
  await page.keyboard.press('Enter')
  await page.keyboard.press('Shift+ArrowRight')
  assert.equal(await page.getByRole('gridcell', { selected: true }).count(), 2)
  assert.equal(await page.getByLabel('First day').inputValue(), iso(1))
  await checkDays(page).focus()
  await page.keyboard.press('Enter')
  await page.getByRole('button', { name: 'Save hours' }).focus()
  await page.keyboard.press('Enter')
  await page.getByRole('button', { name: /^Remove: / }).waitFor()
  assert.deepEqual((await stored())?.specialDays, [
    { day: iso(1), hours: [] },
    { day: iso(2), hours: [] },
  ])
  await page.getByRole('button', { name: /^Remove: / }).press('Enter')
  await page.getByRole('button', { name: 'Save hours' }).press('Enter')
  await page.getByText('No day has other hours.').waitFor()
  assert.deepEqual((await stored())?.specialDays, [])
})

test('new hours show the reservations outside them, and keep or cancel them', async (b) => {
  const branch = await newBranch({ seats: 2 })
  const student = await newStudent('Pia Example')
  const day = { startTime: `${iso(2)}T10:00:00Z`, endTime: `${iso(2)}T11:00:00Z` }
  await ok(student.api.POST('/v1/reservations', { body: { seatId: branch.seats[0]?.id ?? '', ...day } }))
  const page = await b.page({ as: await newStaff('ROLE_LIBRARIAN', [branch.code]) })
  await section(page, 'hours', branch)
  await page.getByLabel('First day').fill(iso(2))
  await checkDays(page).click()
  const dialog = page.getByRole('dialog')
  await dialog.getByText('Pia Example').waitFor()
  assert.equal(await dialog.getByLabel('Keep them').isChecked(), true)
  await dialog.getByRole('button', { name: 'Save hours', exact: true }).click()
  await page.getByRole('button', { name: /^Remove: / }).waitFor()
  assert.equal((await ok(student.api.GET('/v1/reservations'))).reservations.length, 1)

  await page.getByRole('radio', { name: 'Other hours' }).check()
  await page.getByLabel('These days opens').fill('20:00')
  await checkDays(page).click()
  await dialog.getByLabel('Cancel them').check()
  await dialog.getByRole('button', { name: 'Save hours and cancel 1 reservation' }).click()
  await page.getByText('The opening hours are saved.').last().waitFor()
  await until(async () =>
    assert.equal((await ok(student.api.GET('/v1/reservations'))).reservations.length, 0),
  )
})

test('a policy is made, changed and removed', async (b) => {
  const branch = await newBranch({ seats: 2, areas: ['Hall', 'Lab'] })
  const page = await b.page({ as: await newStaff('ROLE_LIBRARIAN', [branch.code]) })
  const { api } = await admin()
  const mine = async () =>
    (await ok(api.GET('/v1/admin/policies'))).policies.filter((p) => p.branch === branch.code)
  await section(page, 'policies', branch)
  await page.getByRole('button', { name: 'New policy' }).click()
  await page.getByLabel('Room or area').selectOption('Lab')
  await page.getByLabel(/^Group of users/).fill(`group ${markup}`)
  await page.getByRole('checkbox', { name: 'Longest reservation' }).check()
  await page.getByRole('spinbutton', { name: 'Value: Longest reservation' }).fill('2.5')
  await page.getByLabel('Unit: Longest reservation').selectOption('hours')
  await page.getByRole('checkbox', { name: 'Length of the suspensions' }).check()
  await page.getByLabel('Value: Length of the suspensions').fill('7, x')
  await page.getByRole('checkbox', { name: 'To check in, a user needs' }).check()
  await page.getByLabel('Value: To check in, a user needs').selectOption('CHECK_IN_RULE_SCREEN')
  await page.getByText(`No screen is on in: ${branch.name}`).waitFor()
  await page.getByRole('button', { name: 'Save policy' }).click()
  await page.getByText('Enter a whole number').first().waitFor()
  assert.equal((await mine()).length, 0)
  await page.getByLabel('Value: Length of the suspensions').fill('7, 14')
  // A time that the server refuses is marked at its field in words, and the field comes into view.
  const longest = page.getByRole('spinbutton', { name: 'Value: Longest reservation' })
  await longest.fill('0')
  await page.getByRole('button', { name: 'Save policy' }).click()
  await page.getByText('Enter 1 minute to 7 days.').waitFor()
  await until(async () => assert(await longest.evaluate((e) => e === document.activeElement)))
  assert.equal(await page.getByText('maxReservation').count(), 0)
  await longest.fill('2.5')
  await page.getByRole('button', { name: 'Save policy' }).click()
  await page.getByText('requires a screen that is on').first().waitFor()
  const params = { path: { branch: branch.code } }
  await ok(api.POST('/v1/admin/branches/{branch}/screens', { params, body: { name: 'Entrance' } }))
  await page.getByRole('button', { name: 'Save policy' }).click()
  await page.getByText('The policy is saved').first().waitFor()
  const [made] = await mine()
  assert.equal(made?.area, 'Lab')
  assert.equal(made.group, `group ${markup}`)
  assert.deepEqual(
    [made.rules?.maxReservation, made.rules?.suspensionDays, made.rules?.checkIn],
    ['9000s', [7, 14], 'CHECK_IN_RULE_SCREEN'],
  )
  await page.getByText('2 hours 30 minutes').waitFor()

  await page.getByRole('button', { name: /^Change: / }).click()
  await page.getByRole('checkbox', { name: 'Length of the suspensions' }).uncheck()
  await page.getByRole('checkbox', { name: 'To check in, a user needs' }).uncheck()
  await page.getByRole('button', { name: 'Save policy' }).click()
  await until(async () => assert.deepEqual((await mine())[0]?.rules?.suspensionDays, []))

  await page.getByRole('button', { name: /^Remove: / }).click()
  await page.getByRole('dialog').getByRole('button', { name: 'Remove' }).click()
  await page.getByText('The policy is removed.').first().waitFor()
  assert.deepEqual(await mine(), [])
})

test('an announcement shows on the first page, as text', async (b) => {
  const branch = await newBranch({ seats: 1 })
  const page = await b.page({ as: await newStaff('ROLE_LIBRARIAN', [branch.code]), language: 'de' })
  await section(page, 'announcement', branch)
  await page.getByRole('textbox', { name: 'Deutsch' }).fill(`Der Aufzug ist defekt ${markup}`)
  await page.getByRole('textbox', { name: 'English' }).fill('The lift is out of order')
  await page.getByRole('button', { name: 'Studierenden zeigen' }).click()
  await page.getByText('Studierende sehen die Ankündigung jetzt.').first().waitFor()
  const texts = { de: `Der Aufzug ist defekt ${markup}`, en: 'The lift is out of order' }
  for (const language of ['de', 'en'] as const) {
    const student = await b.page({ language, device: 'phone' })
    await student.goto(`/?branch=${branch.code}`)
    await student.getByText(texts[language]).first().waitFor()
  }
  await page.getByRole('button', { name: 'Entfernen' }).click()
  await page.getByText('Es gibt keine Ankündigung.').waitFor()
  const { branches } = await ok(visitor.GET('/v1/branches'))
  assert.deepEqual(branches.find((x) => x.code === branch.code)?.announcement ?? {}, {})
})

test('a text that is not shown yet is not lost without a question', async (b) => {
  const branch = await newBranch({ seats: 1 })
  const page = await b.page({ as: await newStaff('ROLE_LIBRARIAN', [branch.code]) })
  await section(page, 'announcement', branch)
  const english = page.getByRole('textbox', { name: 'English' })
  await english.fill('The lift is out of order')
  const today = page.getByRole('link', { name: 'Today', exact: true })
  const questions: string[] = []
  page.once('dialog', (d) => {
    questions.push(d.message())
    void d.dismiss()
  })
  await today.click()
  await until(async () => assert.equal(questions.length, 1))
  assert.match(questions[0] ?? '', /not saved/)
  assert.equal(await english.inputValue(), 'The lift is out of order')
  await page.getByRole('button', { name: 'Show to students' }).click()
  await page.getByText('Students see the announcement now.').first().waitFor()
  await today.click()
  await page.getByRole('heading', { name: 'Today', level: 1 }).waitFor()
})

for (const [name, open] of [
  ['closures', 'Close a room, seats or the branch'],
  ['policies', 'New policy'],
] as const) {
  test(`the form of new ${name} is not lost without a question`, async (b) => {
    const branch = await newBranch({ seats: 1, areas: ['Hall'] })
    const page = await b.page({ as: await newStaff('ROLE_LIBRARIAN', [branch.code]) })
    await section(page, name, branch)
    const today = page.getByRole('link', { name: 'Today', exact: true })
    const input =
      name === 'closures'
        ? page.getByRole('textbox', { name: 'English' })
        : page.getByRole('textbox', { name: /^Group of users/ })
    await page.getByRole('button', { name: open }).click()
    await input.fill('A pipe has burst')
    let questions = 0
    page.on('dialog', (d) => {
      questions++
      void d.dismiss()
    })
    await today.click()
    await until(async () => assert.equal(questions, 1))
    assert.equal(await input.inputValue(), 'A pipe has burst')
    await page.getByRole('button', { name: 'Cancel', exact: true }).click()
    await input.waitFor({ state: 'detached' })
    await today.click()
    await page.getByRole('heading', { name: 'Today', level: 1 }).waitFor()
    assert.equal(questions, 1)
  })
}

test('a report has the numbers of the API', async (b) => {
  const page = await b.page({ as: await newStaff('ROLE_LIBRARIAN') })
  const days = { from: iso(-14), to: iso(-8) }
  const { api } = await admin()
  const { rows } = await ok(
    api.GET('/v1/reports/usage', { params: { query: { ...days, branch: 'main', by: 'USAGE_BY_DAY' } } }),
  )
  const sum = (f: (r: (typeof rows)[0]) => number | string): number =>
    rows.reduce((n, r) => n + Number(f(r)), 0)
  await page.goto(`/admin/reports?${new URLSearchParams({ branch: 'main', ...days })}`)
  const total = (name: string) => page.locator('.totals > div', { hasText: name }).first().locator('dd')
  const number = (n: number): string => new Intl.NumberFormat('en-GB').format(n)
  await total('Reservations')
    .getByText(number(sum((r) => r.reservations)), { exact: true })
    .waitFor()
  const reserved = Math.round((100 * sum((r) => r.reservedMinutes)) / sum((r) => r.openMinutes))
  assert.equal(await total('Reserved time').textContent(), `${reserved}%`)
  assert.equal(await total('Check-ins').textContent(), number(sum((r) => r.checkIns?.total ?? 0)))

  // The table of a chart, and its file.
  const figure = page.locator('section.figure', { hasText: 'Check-ins and no-shows by day' })
  await figure.getByText('Show as a table').click()
  const cells = await figure.locator('tbody tr').first().locator('th, td').allTextContents()
  const first = rows[0]
  assert.deepEqual(
    cells.map((c) => c.replaceAll(',', '')),
    [
      first?.day,
      first?.reservations,
      first?.checkIns?.total,
      first?.noShows,
      first?.cancelled,
      first?.cancelledByLibrary,
    ].map(String),
  )
  const saved = page.waitForEvent('download')
  await figure.getByRole('button', { name: /Save as CSV/ }).click()
  const csv = readFileSync(await (await saved).path(), 'utf8').split('\r\n')
  assert.equal(
    csv[0],
    '\ufeffDay,Reservations made,Check-ins,No-shows,Cancelled by users,Cancelled by the library',
  )
  assert.equal(csv.length, rows.length + 2)

  const file = page.waitForEvent('download')
  await page.getByRole('button', { name: 'Save reservations' }).click()
  assert.match(readFileSync(await (await file).path(), 'utf8'), /^\ufeff?person,group,branch,area,seat,/)
})

test('an admin changes the data and the role of a person, and the audit log shows it', async (b) => {
  const branch = await newBranch({ seats: 1 })
  const student = await newStudent(`Lea ${markup}`)
  const page = await b.page({ as: await newStaff('ROLE_ADMIN') })
  await section(page, 'people', branch)
  await page.getByLabel('Find a person').fill(student.studentId)
  await page.getByRole('button', { name: 'Find' }).click()
  await page.getByText(`Lea ${markup}`, { exact: true }).waitFor()
  await page.getByRole('button', { name: /^Change data/ }).click()
  await page.getByLabel('Group').fill('phd')
  await page.getByLabel('Reason for the audit log').fill('asked by letter')
  await page.getByRole('button', { name: 'Save' }).click()
  await page.getByText('Group: phd').waitFor()

  await page.getByRole('button', { name: /^Role/ }).click()
  await page.getByLabel('Librarian').check()
  await page.getByRole('checkbox', { name: 'All branches' }).uncheck()
  await page.getByRole('checkbox', { name: branch.name }).check()
  await page.getByRole('button', { name: 'Save' }).click()
  await page.locator('.person').getByText('Librarian', { exact: true }).waitFor()
  await page.getByRole('button', { name: /^Role/ }).click()
  // The form knows the branches of the role.
  await until(async () =>
    assert.equal(await page.getByRole('checkbox', { name: branch.name }).isChecked(), true),
  )
  await page.keyboard.press('Escape')

  await section(page, 'audit', branch, { all: '1', object: `user/${student.id}` })
  const role = page.locator('.section li.card', { hasText: 'Role' }).first()
  await role.getByText('LIBRARIAN', { exact: true }).waitFor()
  await role.getByText(branch.code, { exact: true }).waitFor()
  await page.getByText('Reason: asked by letter').waitFor()
})

test('a pasted table of people is checked before it changes anything', async (b) => {
  const branch = await newBranch({ seats: 1 })
  const [one, two] = [await newStudent(), await newStudent()]
  const page = await b.page({ as: await newStaff('ROLE_ADMIN') })
  const group = unique('g')
  await section(page, 'people', branch)
  await page.getByText('Change many people at once').click()
  const table = page.getByLabel('Table', { exact: true })
  const check = page.getByRole('button', { name: 'Check the table' })
  await table.fill(`student_id,group\n${one.studentId},${group}\nT-does-not-exist,${group}\n`)
  await check.click()
  await page.getByText('Line 3: ').waitFor()
  const faulty = [
    ['Student ID', 'Group', 'E-Mail'],
    [one.studentId, group, ''],
    [two.studentId, `"${group}"`, 'no address'],
  ]
  await table.fill(faulty.map((cells) => cells.join('\t')).join('\n'))
  await check.click()
  await page.getByText(/Line 3: email/).waitFor()
  await table.fill(`student_id;group\n${one.studentId};${group}\n${two.studentId};${group}\n`)
  await check.click()
  await page.getByText('2 lines are correct. 2 people change.').waitFor()
  const { api } = await admin()
  const groupOf = async (studentId: string) =>
    (await ok(api.GET('/v1/desk/users', { params: { query: { studentId } } }))).users[0]?.group
  assert.equal(await groupOf(one.studentId), '')
  await page.getByRole('button', { name: 'Change 2 people' }).click()
  await page.getByText('2 people were changed.').first().waitFor()
  assert.deepEqual([await groupOf(one.studentId), await groupOf(two.studentId)], [group, group])
})

test('today follows the seats of the branch', async (b) => {
  const branch = await newBranch({ seats: 3 })
  const student = await newStudent()
  const page = await b.page({ as: await newStaff('ROLE_LIBRARIAN', [branch.code]) })
  await page.goto('/admin')
  const free = page.locator('.totals .free dd')
  await free.getByText('3', { exact: true }).waitFor()
  await book(student, branch.seats[0]?.id ?? '')
  await free.getByText('2', { exact: true }).waitFor()
  const { api } = await admin()
  const body = { branch: branch.code, area: 'Hall', startTime: inMinutes(600), endTime: inMinutes(660) }
  await ok(api.POST('/v1/admin/closures', { body }))
  await page.locator('section', { hasText: 'All closures' }).getByText('Hall').waitFor()
})

test('a student and a librarian of another branch do not see the page of a branch', async (b) => {
  const [mine, other] = [await newBranch({ seats: 1 }), await newBranch({ seats: 1 })]
  const student = await b.page({ as: await newStudent() })
  await student.goto('/admin')
  await student.getByText('Your role does not allow this.').waitFor()
  assert.equal(await student.locator('.section-nav').count(), 0)
  const librarian = await b.page({ as: await newStaff('ROLE_LIBRARIAN', [mine.code]) })
  await section(librarian, 'hours', other)
  await librarian.getByText('All times are in the time zone').waitFor()
  assert.equal(await librarian.getByText(other.name).count(), 0)
})

test(
  'the sections have no violation of axe',
  async (b) => {
    const branch = await newBranch({
      seats: 4,
      areas: ['Hall', 'Lab'],
      name: `Branch ${markup.slice(0, 10)}`,
    })
    const { api } = await admin()
    const body = { branch: branch.code, startTime: inMinutes(600), note: { en: 'Closed' } }
    await ok(api.POST('/v1/admin/closures', { body }))
    const person = await newStaff('ROLE_ADMIN')
    const pages = [
      '',
      'closures',
      'closures?new=1',
      'announcement',
      'hours',
      'policies',
      'people?q=A0001',
      'reports',
      'audit',
    ]
    for (const [device, theme] of [
      ['desktop', 'light'],
      ['phone', 'dark'],
      ['narrow', 'light'],
    ] as const) {
      const page = await b.page({ as: person, device, theme })
      for (const path of pages) {
        const url = new URL(path, 'http://x/admin/')
        await section(
          page,
          url.pathname.slice('/admin/'.length),
          branch,
          Object.fromEntries(url.searchParams),
        )
        await until(async () => assert.equal(await page.locator('.loading').count(), 0))
        await checkAxe(page, `${path} ${device} ${theme}`)
        const wide = await page.evaluate(() => {
          const { scrollWidth, clientWidth } = document.documentElement
          return scrollWidth - clientWidth
        })
        assert.equal(wide, 0, `${path} scrolls to the side on ${device}`)
      }
    }
  },
  { timeout: 240_000 },
)
