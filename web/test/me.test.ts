// The user's own seats, and check-in with codes.
import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import { build } from 'esbuild'
import { admin, book, inMinutes, login, newBranch, newStudent, ok, password } from './harness/api.ts'
import type { Branch, Person } from './harness/api.ts'
import { checkAxe } from './harness/axe.ts'
import { test, type Page } from './harness/browser.ts'
import { cameraOf, labelsOf, newScreen, setRules } from './harness/codes.ts'
import { until } from './harness/until.ts'

function seat(branch: Branch, index = 0): string {
  return branch.seats[index]?.id ?? ''
}

/** card returns the card of the reservation of this moment. */
function card(page: Page, label = 'T-01'): ReturnType<Page['locator']> {
  return page.locator('section.present', { hasText: `Seat ${label}` })
}

/** proofOf returns what has proved the check-in of the user's only reservation. */
async function proofOf(person: Person): Promise<readonly string[]> {
  const query = { view: 'RESERVATION_VIEW_ALL' as const }
  const { reservations } = await ok(person.api.GET('/v1/reservations', { params: { query } }))
  return reservations.map((r) => r.proof)
}

async function cancel(person: Person, id: string): Promise<void> {
  const params = { path: { reservationId: id } }
  await ok(person.api.POST('/v1/reservations/{reservationId}:cancel', { params, body: {} }))
}

async function signIn(page: Page, person: Person): Promise<void> {
  await page.getByLabel('Student number').fill(person.studentId)
  await page.getByLabel('Password', { exact: true }).fill(password)
  await page.getByRole('main').getByRole('button', { name: 'Sign in' }).click()
}

test('check in, stay longer, and leave', async (b) => {
  const [student, branch] = await Promise.all([newStudent(), newBranch({ seats: 1 })])
  const r = await book(student, seat(branch), { minutes: 60 })
  const page = await b.page({ as: student, device: 'phone' })
  await page.goto('/me')
  const present = card(page)
  await present.getByText('Check in by').waitFor()
  // The times are those of the library.
  const berlin = new Intl.DateTimeFormat('en-GB', {
    timeZone: 'Europe/Berlin',
    hour: '2-digit',
    minute: '2-digit',
  })
  const [from, to] = [r.startTime, r.endTime].map((time) => berlin.format(new Date(time ?? '')))
  await present.getByText(`${from} to ${to}`).waitFor()
  await present.getByRole('button', { name: 'Check in' }).click()
  await present.getByText('Checked in', { exact: true }).waitFor()
  const left = (await present.getByRole('timer').textContent()) ?? ''
  assert.match(left, /^(1:00:00|59:\d\d)$/)

  await present.getByRole('button', { name: 'Stay longer' }).click()
  await present.getByRole('button', { name: /\+30 min/ }).click()
  await page.getByText('Your reservation now ends at').first().waitFor()
  await until(async () => assert.match((await present.getByRole('timer').textContent()) ?? '', /^1:(29|30):/))

  await present.getByRole('button', { name: 'Leave' }).click()
  const dialog = page.getByRole('dialog')
  await checkAxe(page, 'dialog to leave')
  await dialog.getByRole('button', { name: 'Leave' }).click()
  await page.getByText('You have no reservation.').waitFor()
  const past = page.locator('.history li').first()
  await past.getByText('Completed').waitFor()
  await past.getByText('without a code').waitFor()
  await past.getByText('Left at').waitFor()
})

test('a keyboard is enough to check in, stay longer and leave, and the focus is never lost', async (b) => {
  const [student, branch] = await Promise.all([newStudent(), newBranch({ seats: 1 })])
  await book(student, seat(branch), { minutes: 60 })
  const page = await b.page({ as: student })
  await page.goto('/me')
  /** press goes to a button by Tab alone, from where the focus is, and presses it. */
  const press = async (name: RegExp): Promise<void> => {
    for (let i = 0; i < 40; i++) {
      await page.keyboard.press('Tab')
      const text = await page.evaluate(() => {
        const button = document.activeElement
        return button instanceof HTMLButtonElement ? button.innerText : ''
      })
      if (!name.test(text)) continue
      await page.keyboard.press('Enter')
      return
    }
    throw new Error(`Tab does not reach ${name}`)
  }
  const focused = (): Promise<string> => page.evaluate(() => document.activeElement?.tagName ?? '')
  await card(page).getByRole('button', { name: 'Check in' }).waitFor()
  await press(/^Check in$/)
  await card(page).getByText('Checked in', { exact: true }).waitFor()
  await until(async () => assert.equal(await focused(), 'H1'))
  await press(/^Stay longer$/)
  await card(page)
    .getByRole('button', { name: /30 min/ })
    .first()
    .waitFor()
  await press(/30 min/)
  await page.getByText('Your reservation now ends at').first().waitFor()
  await until(async () => assert.equal(await focused(), 'BUTTON'))
  await press(/^Leave$/)
  await page.getByRole('dialog').waitFor()
  await press(/^Leave$/)
  await page.getByText('You have no reservation.').waitFor()
  await until(async () => assert.equal(await focused(), 'H1'))
})

test('only ends that the library allows are offered', async (b) => {
  const [student, other, branch] = await Promise.all([newStudent(), newStudent(), newBranch({ seats: 2 })])
  await book(student, seat(branch), { minutes: 30 })
  await book(other, seat(branch), { start: 50, minutes: 60 })
  const page = await b.page({ as: student })
  await page.goto('/me')
  await card(page).getByRole('button', { name: 'Stay longer' }).click()
  await card(page)
    .getByRole('button', { name: /\+15 min/ })
    .waitFor()
  assert.equal(await card(page).locator('.chip').count(), 1)
  await card(page)
    .getByRole('button', { name: /\+15 min/ })
    .click()
  await page.getByText('Your reservation now ends at').first().waitFor()
  await card(page).getByRole('button', { name: 'Stay longer' }).click()
  await card(page).getByText('The seat is reserved for another user from').waitFor()
})

test('a coming reservation is cancelled by the user, and another one by a closure, live', async (b) => {
  const [student, branch] = await Promise.all([newStudent(), newBranch({ seats: 2 })])
  await book(student, seat(branch, 0), { start: 120, minutes: 60 })
  await book(student, seat(branch, 1), { start: 240, minutes: 60 })
  const page = await b.page({ as: student })
  await page.goto('/me')
  const coming = page.locator('li.seat-item')
  await until(async () => assert.equal(await coming.count(), 2))
  await coming.filter({ hasText: 'T-01' }).getByRole('button', { name: 'Cancel the reservation' }).click()
  await page.getByRole('dialog').getByRole('button', { name: 'Cancel the reservation' }).click()
  await page.getByText('The reservation of seat T-01 is cancelled').first().waitFor()
  assert.equal(await coming.count(), 1)

  const staff = await admin()
  const body = {
    branch: branch.code,
    startTime: inMinutes(200),
    endTime: inMinutes(400),
    onBookings: 'BOOKING_ACTION_CANCEL' as const,
    expectedReservations: 1,
    note: { en: 'A pipe has burst' },
  }
  await ok(staff.api.POST('/v1/admin/closures', { body }))
  await page.getByText('You have no reservation.').waitFor()
  const ended = page.locator('.history li')
  await ended.filter({ hasText: 'T-01' }).getByText('Cancelled', { exact: true }).waitFor()
  await ended.filter({ hasText: 'T-02' }).getByText('Cancelled by the library', { exact: true }).waitFor()
})

test('a place in line becomes an offer, which is claimed or declined', async (b) => {
  const [student, other, branch] = await Promise.all([newStudent(), newStudent(), newBranch({ seats: 2 })])
  const windows = [
    { start: 120, minutes: 60 },
    { start: 240, minutes: 60 },
  ]
  const taken = []
  for (const [i, w] of windows.entries()) {
    taken.push(await book(other, seat(branch, i), w))
    const body = {
      seatId: seat(branch, i),
      startTime: taken[i]?.startTime ?? '',
      endTime: taken[i]?.endTime ?? '',
    }
    await ok(student.api.POST('/v1/waitlist', { body }))
  }
  const page = await b.page({ as: student })
  await page.goto('/me')
  await until(async () => assert.equal(await page.getByText('You are next in line').count(), 2))
  await checkAxe(page, 'waitlist')
  for (const r of taken) {
    await cancel(other, r.id)
  }
  const offer = (label: string): ReturnType<Page['locator']> =>
    page.locator('section.card.offer', { hasText: label })
  await offer('T-01').getByRole('timer').waitFor()
  await offer('T-02').getByRole('timer').waitFor()
  await checkAxe(page, 'offers')
  await offer('T-01').getByRole('button', { name: 'Take the seat' }).click()
  await page.locator('li.seat-item', { hasText: 'T-01' }).waitFor()
  await offer('T-02').getByRole('button', { name: 'No, thanks' }).click()
  await offer('T-02').waitFor({ state: 'detached' })
  const { reservations } = await ok(student.api.GET('/v1/reservations'))
  assert.deepEqual(
    reservations.map((r) => r.status),
    ['RESERVATION_STATUS_CONFIRMED'],
  )
})

test('the history has pages', async (b) => {
  const [student, branch] = await Promise.all([newStudent(), newBranch({ seats: 1 })])
  for (let i = 0; i < 12; i++) {
    const { id } = await book(student, seat(branch))
    await cancel(student, id)
  }
  const page = await b.page({ as: student })
  await page.goto('/me')
  const items = page.locator('.history li')
  await until(async () => assert.equal(await items.count(), 10))
  await page.getByRole('button', { name: 'Show more' }).click()
  await until(async () => assert.equal(await items.count(), 12))
  assert.equal(await page.getByRole('button', { name: 'Show more' }).count(), 0)
})

test('a user leaves a waitlist', async (b) => {
  const [student, other, branch] = await Promise.all([newStudent(), newStudent(), newBranch({ seats: 1 })])
  const r = await book(other, seat(branch), { start: 120 })
  const body = { seatId: seat(branch), startTime: r.startTime ?? '', endTime: r.endTime ?? '' }
  await ok(student.api.POST('/v1/waitlist', { body }))
  const page = await b.page({ as: student })
  await page.goto('/me')
  await page.getByRole('button', { name: 'Leave the waitlist' }).click()
  await page.getByRole('dialog').getByRole('button', { name: 'Leave the waitlist' }).click()
  await page.getByText('You are no longer waiting for seat T-01').first().waitFor()
  const { entries } = await ok(student.api.GET('/v1/waitlist'))
  assert.deepEqual(
    entries.map((e) => e.status),
    ['WAITLIST_STATUS_LEFT'],
  )
})

test('a no-show is told in words, with the suspension, and forgiven', async (b) => {
  const [student, branch] = await Promise.all([newStudent(), newBranch({ seats: 1, name: 'Strict Library' })])
  await setRules(branch, { grace: '0s', strikeLimit: 1, suspensionDays: [3] } as never)
  const page = await b.page({ as: student })
  await page.goto('/me')
  await page.getByText('You have no reservation.').waitFor()
  await book(student, seat(branch))
  await page.getByRole('heading', { name: 'You cannot reserve seats until' }).waitFor()
  await page.getByText('ask at Strict Library').first().waitFor()
  await page.locator('.history li', { hasText: 'Not used' }).waitFor()
  await page.getByText('Has led to a suspension').waitFor()
  await checkAxe(page, 'suspension')
  const staff = await admin()
  const { strikes } = await ok(student.api.GET('/v1/standing'))
  const body = { strikeId: strikes[0]?.id ?? '', reason: 'the scanner was broken' }
  await ok(staff.api.POST('/v1/desk/strikes:forgive', { body }))
  await page.reload()
  await page.getByText('Forgiven by the library').waitFor()
  await page.getByText('the scanner was broken').waitFor()
  assert.equal(await page.getByText('You cannot reserve seats until').count(), 0)
})

test('rule DESK: the page sends the user to the desk', async (b) => {
  const [student, branch] = await Promise.all([newStudent(), newBranch({ seats: 1 })])
  await setRules(branch, { checkIn: 'CHECK_IN_RULE_DESK' } as never)
  await book(student, seat(branch))
  const page = await b.page({ as: student })
  await page.goto('/me')
  await card(page).getByText('The library checks you in').waitFor()
  assert.equal(await card(page).getByRole('button', { name: 'Check in' }).count(), 0)
  const labels = await labelsOf(branch)
  await page.goto(`/s/${labels.get(seat(branch)) ?? ''}`)
  await page.getByText('The library checks you in').waitFor()
})

test('rule SEAT: the label of the own seat checks in, and that of another does not', async (b) => {
  const [student, branch] = await Promise.all([newStudent(), newBranch({ seats: 2 })])
  await setRules(branch, { checkIn: 'CHECK_IN_RULE_SEAT' } as never)
  await book(student, seat(branch))
  const labels = await labelsOf(branch)
  const page = await b.page({ as: student, device: 'phone' })
  await page.goto('/me')
  await card(page).getByRole('link', { name: 'Scan the label' }).click()
  const type = async (code: string): Promise<void> => {
    await page.locator('details').evaluate((d: HTMLDetailsElement) => {
      d.open = true
    })
    await page.getByLabel('Code', { exact: true }).fill(code)
    await page.getByRole('button', { name: 'Go on' }).click()
  }
  await type('https://elsewhere.example/hello')
  await page.getByText('This is not a code of the library').waitFor()
  await type(`HTTPS://ELSEWHERE.EXAMPLE/S/${labels.get(seat(branch, 1)) ?? ''}`)
  await page.getByText('This is the label of seat T-02').waitFor()
  await type(`https://elsewhere.example/s/${(labels.get(seat(branch)) ?? '').toLowerCase()}`)
  await page.getByRole('heading', { name: 'You are checked in' }).waitFor()
  assert.deepEqual(await proofOf(student), ['PROOF_SEAT'])
})

test('rule SCREEN: digits on the own page, and errors of digits', async (b) => {
  const [student, branch] = await Promise.all([newStudent(), newBranch({ seats: 1 })])
  const screen = await newScreen(branch)
  await setRules(branch, { checkIn: 'CHECK_IN_RULE_SCREEN' } as never)
  await book(student, seat(branch))
  const page = await b.page({ as: student, device: 'phone' })
  await page.goto('/me')
  const digits = page.getByLabel('Or type the 8 digits')
  await digits.fill('1234 5678')
  await card(page).getByRole('button', { name: 'Check in' }).click()
  await page.getByText('This code is not valid').waitFor()
  await checkAxe(page, 'wrong digits')
  await digits.fill(screen.now().digits.replace(/(....)/, '$1 '))
  await card(page).getByRole('button', { name: 'Check in' }).click()
  await card(page).getByText('Checked in', { exact: true }).waitFor()
  assert.deepEqual(await proofOf(student), ['PROOF_SCREEN'])
})

test('rule SCREEN: a scan before the sign-in is recorded, and checks in after it', async (b) => {
  const [student, branch] = await Promise.all([newStudent(), newBranch({ seats: 1 })])
  const screen = await newScreen(branch, 'Hall')
  await setRules(branch, { checkIn: 'CHECK_IN_RULE_SCREEN' } as never)
  await book(student, seat(branch))
  const page = await b.page({ device: 'phone' })
  const sent: string[] = []
  page.on('request', (r) => {
    if (/scans|:checkIn|login/.test(r.url())) sent.push(new URL(r.url()).pathname.replace(/\/\d+/, '/1'))
  })
  const { code } = screen.now()
  await page.goto(`/C/${code}`)
  await page.getByText('You are at the screen “Hall”').waitFor()
  assert.equal(new URL(page.url()).pathname, '/scan', 'the code is still in the address')
  await checkAxe(page, 'sign-in after a scan')
  const register = page.getByRole('main').getByRole('link', { name: 'Create an account' })
  assert.equal(await register.getAttribute('href'), '/register?next=%2Fscan')
  await signIn(page, student)
  await page.getByRole('heading', { name: 'You are checked in' }).waitFor()
  assert.deepEqual(sent, ['/v1/scans', '/v1/auth/login', '/v1/reservations/1:checkIn'])
  assert.deepEqual(await proofOf(student), ['PROOF_SCREEN'])
  const kept = await page.evaluate(() =>
    JSON.stringify([{ ...localStorage }, { ...sessionStorage }, location.href, history.state]),
  )
  assert.ok(!kept.includes(code), 'the code is kept')
  // After leaving, the page does not say that the user is checked in, and tells the end once.
  await page.getByRole('button', { name: 'Leave' }).click()
  await page.getByRole('dialog').getByRole('button', { name: 'Leave' }).click()
  await page.getByText('This reservation has ended').waitFor()
  assert.equal(await page.getByRole('heading', { name: 'You are checked in' }).count(), 0)
  await page.locator('.notice', { hasText: 'You have left seat' }).waitFor()
  await page.getByRole('link', { name: 'My seats' }).first().click()
  await page.getByText('Left at').waitFor()
  assert.equal(await page.locator('.notice').count(), 1)
  // Scanned once more, the page says that nothing is left to do.
  await page.goBack().catch(() => null)
  assert.ok(!page.url().includes(code), 'the code is in the history')
})

test('the code of a screen with several reservations lets the user choose', async (b) => {
  const [student, branch] = await Promise.all([newStudent(), newBranch({ seats: 2 })])
  const screen = await newScreen(branch)
  await setRules(branch, { checkIn: 'CHECK_IN_RULE_SCREEN', checkInLead: '7200s' } as never)
  await book(student, seat(branch, 0), { start: 30, minutes: 30 })
  await book(student, seat(branch, 1), { start: 70, minutes: 30 })
  const page = await b.page({ as: student })
  await page.goto(`/c/${screen.now().code}`)
  await page.getByRole('heading', { name: 'Which reservation' }).waitFor()
  await checkAxe(page, 'choice')
  await page.getByRole('button', { name: 'Check in: T-02' }).click()
  await page.getByRole('heading', { name: 'You are checked in' }).waitFor()
  await card(page, 'T-02').waitFor()
})

test('the code of a screen without a reservation offers free seats, or says when check-in opens', async (b) => {
  const [student, branch] = await Promise.all([newStudent(), newBranch({ seats: 1, name: 'Quiet House' })])
  const screen = await newScreen(branch)
  const page = await b.page({ as: student })
  await page.goto(`/c/${screen.now().code}`)
  await page.getByRole('heading', { name: 'You have no reservation for now in Quiet House' }).waitFor()
  const href = await page.getByRole('link', { name: 'Find a free seat' }).getAttribute('href')
  assert.equal(href, `/?branch=${branch.code}`)
  await book(student, seat(branch), { start: 60 })
  await page.goto(`/c/${screen.now().code}`)
  await page.getByText('Check-in opens at').waitFor()
  await page.goto('/c/' + 'A'.repeat(31))
  await page.getByText('This code is not valid').waitFor()
})

test('rule SEAT_AND_SCREEN: the page leads through both codes, in any order', async (b) => {
  const branch = await newBranch({ seats: 2 })
  const [screen, labels] = await Promise.all([newScreen(branch), labelsOf(branch)])
  await setRules(branch, { checkIn: 'CHECK_IN_RULE_SEAT_AND_SCREEN' } as never)
  for (const first of ['screen', 'seat'] as const) {
    const student = await newStudent()
    const index = first === 'screen' ? 0 : 1
    await book(student, seat(branch, index))
    const page = await b.page({ as: student, device: 'phone' })
    const label = labels.get(seat(branch, index)) ?? ''
    const type = async (code: string): Promise<void> => {
      await page.locator('details').evaluate((d: HTMLDetailsElement) => {
        d.open = true
      })
      await page.getByLabel('Code', { exact: true }).fill(code)
      await page.getByRole('button', { name: 'Go on' }).click()
    }
    if (first === 'screen') {
      await page.goto(`/c/${screen.now().code}`)
      await page.getByRole('heading', { name: 'Now scan the label of seat T-01' }).waitFor()
      await page.locator('.collected', { hasText: 'Code of the screen' }).waitFor()
      await checkAxe(page, 'the second code')
      await type(`/s/${label}`)
    } else {
      await page.goto(`/s/${label}`)
      await page.getByRole('heading', { name: 'For seat T-02, scan the code of a screen' }).waitFor()
      await page.getByLabel('Or type the 8 digits').fill('00000000')
      await page.getByRole('button', { name: 'Check in' }).click()
      await page.getByText('This code is not valid').waitFor()
      // The label is kept, and a bare code is taken for what it is.
      await page.locator('.collected', { hasText: 'Label of the seat' }).waitFor()
      await type(screen.now().code)
    }
    await page.getByRole('heading', { name: 'You are checked in' }).waitFor()
    assert.deepEqual(await proofOf(student), ['PROOF_SEAT_AND_SCREEN'])
  }
})

test('a free seat is taken by its label in one tap, and the label then shows the stay', async (b) => {
  const [student, branch] = await Promise.all([newStudent(), newBranch({ seats: 1, zone: 'Asia/Kolkata' })])
  const label = (await labelsOf(branch)).get(seat(branch)) ?? ''
  const page = await b.page({ device: 'phone' })
  await page.goto(`/s/${label}`)
  await page.getByText('Sign in to sit down').waitFor()
  assert.equal(new URL(page.url()).pathname, '/scan')
  await signIn(page, student)
  const sit = page.getByRole('button', { name: /^Sit down until/ })
  await sit.waitFor()
  await checkAxe(page, 'sit down')
  await page.locator('.chip').first().click()
  await sit.click()
  await page.getByRole('heading', { name: 'You are checked in' }).waitFor()
  assert.deepEqual(await proofOf(student), ['PROOF_SEAT'])
  const { reservations } = await ok(student.api.GET('/v1/reservations'))
  assert.match(reservations[0]?.endTime ?? '', /:[03]0:00Z$/, 'a library may allow only half hours')

  const again = await b.page({ as: student, device: 'phone' })
  await again.goto(`/S/${label}`)
  await again.getByRole('heading', { name: 'You are checked in already' }).waitFor()
  await again.getByRole('button', { name: 'Stay longer' }).waitFor()
})

test('a free seat with the rule SEAT_AND_SCREEN is taken, and the screen is asked for', async (b) => {
  const [student, branch] = await Promise.all([newStudent(), newBranch({ seats: 1 })])
  const [screen, labels] = await Promise.all([newScreen(branch), labelsOf(branch)])
  await setRules(branch, { checkIn: 'CHECK_IN_RULE_SEAT_AND_SCREEN' } as never)
  const page = await b.page({ as: student, device: 'phone' })
  await page.goto(`/s/${labels.get(seat(branch)) ?? ''}`)
  await page.getByText('After that, you scan the code of a screen').waitFor()
  await page.getByRole('button', { name: /^Sit down until/ }).click()
  await page.getByLabel('Or type the 8 digits').fill(screen.now().digits)
  await page.getByRole('button', { name: 'Check in' }).click()
  await page.getByRole('heading', { name: 'You are checked in' }).waitFor()
  assert.deepEqual(await proofOf(student), ['PROOF_SEAT_AND_SCREEN'])
})

test('the label of a taken seat, and of a seat that is reserved for later', async (b) => {
  const [student, other, branch] = await Promise.all([newStudent(), newStudent(), newBranch({ seats: 2 })])
  const labels = await labelsOf(branch)
  await book(other, seat(branch, 0), { minutes: 60 })
  await book(student, seat(branch, 1), { start: 40, minutes: 60 })
  const page = await b.page({ as: student })
  await page.goto(`/s/${labels.get(seat(branch, 0)) ?? ''}`)
  await page.getByText('It is free again from').waitFor()
  await page.getByRole('link', { name: 'Find a free seat' }).waitFor()
  await page.goto(`/s/${labels.get(seat(branch, 1)) ?? ''}`)
  await page.getByText('it is too early to check in').waitFor()
  await page.getByRole('timer').waitFor()

  // A visitor may have reserved the seat.
  const visitor = await b.page()
  await visitor.goto(`/s/${labels.get(seat(branch, 0)) ?? ''}`)
  await visitor.getByText('If it is your reservation, sign in').waitFor()
  await signIn(visitor, other)
  await visitor.getByRole('heading', { name: 'You are checked in' }).waitFor()
})

test('the camera reads the code of a screen with the decoder of the page', async (b) => {
  const [student, branch] = await Promise.all([newStudent(), newBranch({ seats: 1 })])
  const screen = await newScreen(branch)
  await setRules(branch, { checkIn: 'CHECK_IN_RULE_SCREEN' } as never)
  await book(student, seat(branch))
  const page = await b.page({
    as: student,
    device: 'phone',
    arguments: cameraOf(`HTTPS://LIBRARY.EXAMPLE/C/${screen.now().code}`),
    before: () => {
      delete (globalThis as { BarcodeDetector?: unknown }).BarcodeDetector
    },
  })
  await page.goto('/scan')
  await page.getByRole('button', { name: 'Open the camera' }).click()
  await page.getByRole('heading', { name: 'You are checked in' }).waitFor()
  assert.equal(await page.locator('video').count(), 0)
  assert.deepEqual(await proofOf(student), ['PROOF_SCREEN'])
})

test('the camera reads a label with the BarcodeDetector of the browser, and stops when it is left', async (b) => {
  const [student, branch] = await Promise.all([newStudent(), newBranch({ seats: 1 })])
  const label = (await labelsOf(branch)).get(seat(branch)) ?? ''
  const page = await b.page({ as: student, arguments: cameraOf(label) })
  // Chromium on Linux has no BarcodeDetector: this one has its interface, and really decodes.
  const entry = createRequire(import.meta.url).resolve('qr/decode.js')
  const contents = `import { BarcodeDetector as B } from ${JSON.stringify(entry)}; globalThis.BarcodeDetector = B`
  const bundle = await build({
    stdin: { contents, resolveDir: '.' },
    bundle: true,
    write: false,
    format: 'iife',
  })
  await page.addInitScript({ content: bundle.outputFiles[0]?.text ?? '' })
  const scripts: string[] = []
  page.on('request', (r) => scripts.push(r.url()))
  await page.goto('/scan')
  await page.getByRole('button', { name: 'Open the camera' }).click()
  await page.getByRole('button', { name: /^Sit down until/ }).waitFor()
  assert.ok(!scripts.some((s) => s.includes('decode')), 'the page has loaded its own decoder')
})

test('the camera stops when the page is hidden or left, and its errors say what to do', async (b) => {
  const student = await newStudent()
  const [allow, device] = ['--use-fake-ui-for-media-stream', '--use-fake-device-for-media-stream']
  const page = await b.page({ as: student, arguments: [allow, device] })
  await page.goto('/scan')
  await page.evaluate(() => {
    const media = navigator.mediaDevices
    const original = media.getUserMedia.bind(media)
    media.getUserMedia = async (c) => {
      const stream = await original(c)
      ;(globalThis as { tracks?: MediaStreamTrack[] }).tracks = stream.getTracks()
      return stream
    }
  })
  await page.getByRole('button', { name: 'Open the camera' }).click()
  await page.getByText('Hold the code in front of the camera').waitFor()
  await checkAxe(page, 'camera')
  const states = (): Promise<unknown> =>
    page.evaluate(() => (globalThis as { tracks?: MediaStreamTrack[] }).tracks?.map((t) => t.readyState))
  assert.deepEqual(await states(), ['live'])
  const show = (state: string): Promise<void> =>
    page.evaluate((s) => {
      Object.defineProperty(document, 'visibilityState', { value: s, configurable: true })
      document.dispatchEvent(new Event('visibilitychange'))
    }, state)
  await show('hidden')
  await page.getByRole('button', { name: 'Open the camera' }).waitFor()
  assert.deepEqual(await states(), ['ended'])
  await show('visible')
  await page.getByRole('button', { name: 'Open the camera' }).click()
  await page.getByText('Hold the code in front of the camera').waitFor()
  assert.deepEqual(await states(), ['live'])
  await page.getByRole('link', { name: 'My seats' }).first().click()
  await page.getByText('You have no reservation.').waitFor()
  assert.deepEqual(await states(), ['ended'])

  const refused = await b.page({ as: student, arguments: [device, '--deny-permission-prompts'] })
  await refused.goto('/scan')
  await refused.getByRole('button', { name: 'Open the camera' }).click()
  await refused.getByText('The page may not use the camera').waitFor()
  const missing = await b.page({ as: student, arguments: [allow] })
  await missing.goto('/scan')
  await missing.getByRole('button', { name: 'Open the camera' }).click()
  await missing.getByText('This device has no camera').waitFor()
})

test('without a network the page shows the last known reservations with their time', async (b) => {
  const [student, branch] = await Promise.all([newStudent(), newBranch({ seats: 1 })])
  await book(student, seat(branch), { start: 120 })
  const page = await b.page({ as: student, faults: true })
  await page.goto('/me')
  await page.locator('li.seat-item', { hasText: 'T-01' }).waitFor()
  await page.evaluate(() => navigator.serviceWorker.ready)
  await page.reload() // the service worker now has the files of the page
  await page.locator('li.seat-item', { hasText: 'T-01' }).waitFor()
  await page.context().setOffline(true)
  await page.reload()
  await page.locator('li.seat-item', { hasText: 'T-01' }).waitFor()
  await page.getByText('The library cannot be reached. These are your seats as of').waitFor()
  assert.equal(await page.getByRole('button', { name: 'Cancel the reservation' }).count(), 0)
  const header = page.locator('header.top')
  assert.equal(await header.getByRole('link', { name: 'Sign in' }).count(), 0, 'the session is not over')
  await header.getByRole('link', { name: 'Settings' }).waitFor()
  await page.context().setOffline(false)
  await page.evaluate(() => dispatchEvent(new Event('online')))
  await page.getByRole('button', { name: 'Cancel the reservation' }).waitFor()
  assert.equal(await page.getByText('The library cannot be reached').count(), 0)
})

test('the own seats have no violation of axe, and fit 320 px', async (b) => {
  const [student, other, branch] = await Promise.all([newStudent(), newStudent(), newBranch({ seats: 3 })])
  await book(student, seat(branch, 0))
  await book(student, seat(branch, 1), { start: 1500 })
  const r = await book(other, seat(branch, 2), { start: 120 })
  const body = { seatId: seat(branch, 2), startTime: r.startTime ?? '', endTime: r.endTime ?? '' }
  await ok(student.api.POST('/v1/waitlist', { body }))
  const fresh = await login(student.studentId)
  const all = [
    { device: 'narrow', language: 'de' },
    { device: 'phone', theme: 'dark', language: 'zh' },
    { device: 'desktop' },
  ] as const
  for (const options of all) {
    const page = await b.page({ ...options, as: fresh })
    for (const path of ['/me', '/scan']) {
      await page.goto(path)
      await page.locator(path === '/me' ? 'section.present' : '.camera').waitFor()
      await checkAxe(page, `${path} ${options.device}`)
      const [content, window] = await page.evaluate(
        () => [document.documentElement.scrollWidth, innerWidth] as const,
      )
      assert.ok(content <= window, `${path} is ${content} px wide, the window ${window}`)
    }
  }
})
