// The page Now: find a seat, book it, and what happens when it is taken.
import assert from 'node:assert/strict'
import {
  admin,
  book,
  inMinutes,
  newBranch,
  newStudent,
  ok,
  password,
  type Branch,
  type Person,
} from './harness/api.ts'
import { checkAxe } from './harness/axe.ts'
import { test, type Page } from './harness/browser.ts'
import { until } from './harness/until.ts'

function id(branch: Branch, index = 0): string {
  return branch.seats[index]?.id ?? ''
}

/** mark returns a seat on the map. */
function mark(page: Page, seat: string): ReturnType<Page['locator']> {
  return page.locator(`.map [data-id="${seat}"]`)
}

/** row returns a seat in the list. */
function row(page: Page, seat: string): ReturnType<Page['locator']> {
  return page.locator(`.seat-row[data-id="${seat}"]`)
}

function sheet(page: Page): ReturnType<Page['locator']> {
  return page.getByRole('dialog')
}

/** open opens the sheet of a seat on the page Now. */
async function open(page: Page, branch: Branch, seat: string): Promise<void> {
  await page.goto(`/?branch=${branch.code}`)
  await row(page, seat).click()
  await sheet(page).waitFor()
}

async function upcoming(person: Person): Promise<readonly { seat?: { id: string }; status: string }[]> {
  return (await ok(person.api.GET('/v1/reservations'))).reservations
}

const bookButton = /^Book until/

test('a visitor signs in at a seat, comes back to it, and books it with one tap', async (b) => {
  const [student, branch] = await Promise.all([newStudent(), newBranch({ seats: 3 })])
  const page = await b.page({ device: 'phone' })
  await open(page, branch, id(branch, 1))
  await sheet(page)
    .getByRole('button', { name: /^Sign in and book until/ })
    .click()
  await page.getByLabel('Student number').fill(student.studentId)
  await page.getByLabel('Password', { exact: true }).fill(password)
  await page.getByRole('main').getByRole('button', { name: 'Sign in' }).click()
  await sheet(page).getByRole('heading', { name: 'Seat T-02' }).waitFor()
  await sheet(page).getByRole('button', { name: bookButton }).click()
  await sheet(page).getByText('Seat T-02 is yours until').waitFor()
  await sheet(page).getByText('Check in by').waitFor()
  await checkAxe(page, 'the sheet of a booked seat')
  assert.deepEqual(
    (await upcoming(student)).map((r) => r.seat?.id),
    [id(branch, 1)],
  )
  await sheet(page).getByRole('button', { name: 'Done' }).click()
  await row(page, id(branch, 1)).getByText('yours until').waitFor()
  assert.equal(new URL(page.url()).searchParams.get('seat'), null)
})

test('a browser that refuses storage can sign in, book, choose and sign out', async (b) => {
  const [student, branch] = await Promise.all([newStudent(), newBranch({ seats: 2 })])
  const page = await b.page({
    device: 'phone',
    before: () =>
      // So does a browser that blocks all cookies.
      Object.defineProperty(globalThis, 'localStorage', {
        get: () => {
          throw new DOMException('Access is denied for this document.', 'SecurityError')
        },
      }),
  })
  await page.goto(`/?branch=${branch.code}`)
  await page.getByRole('banner').getByRole('link', { name: 'Sign in' }).click()
  await page.getByLabel('Student number').fill(student.studentId)
  await page.getByLabel('Password', { exact: true }).fill(password)
  await page.getByLabel('Stay signed in').check()
  await page.getByRole('main').getByRole('button', { name: 'Sign in' }).click()
  await row(page, id(branch)).click()
  await sheet(page).getByRole('button', { name: bookButton }).click()
  await sheet(page).getByRole('button', { name: 'Done' }).click()
  await row(page, id(branch)).getByText('yours until').waitFor()
  await page.getByRole('button', { name: 'Map' }).click()
  await mark(page, id(branch)).waitFor()
  await page.getByRole('banner').getByRole('link', { name: student.name }).click()
  await page.getByRole('button', { name: 'Dark' }).click()
  await page.getByRole('button', { name: 'Sign out here' }).click()
  await page.getByRole('banner').getByRole('link', { name: 'Sign in' }).waitFor()
})

test('a first visit begins with the largest branch', async (b) => {
  const branch = await newBranch({ seats: 1001 }) // other tests have at most 1,000
  const page = await b.page()
  await page.goto('/')
  await until(async () =>
    assert.equal(await page.getByLabel('Branch', { exact: true }).inputValue(), branch.code),
  )
})

test('two users race for a seat: one books it, the other one gets the next seat with one tap', async (b) => {
  const [one, two, branch] = await Promise.all([
    newStudent(),
    newStudent(),
    newBranch({ seats: 5, plan: true }),
  ])
  const pages = await Promise.all([b.page({ as: one }), b.page({ as: two })])
  for (const page of pages) {
    await open(page, branch, id(branch))
    await sheet(page).getByRole('button', { name: bookButton }).waitFor()
    // Both requests are under way before the first one is answered.
    await page.route('**/v1/reservations', async (route) => {
      sent++
      await both
      await route.continue()
    })
  }
  let sent = 0
  let release = (): void => {}
  const both = new Promise<void>((done) => (release = done))
  await Promise.all(pages.map((page) => sheet(page).getByRole('button', { name: bookButton }).click()))
  await until(async () => assert.equal(sent, 2))
  release()
  await until(async () => {
    const won = await Promise.all(pages.map((page) => sheet(page).getByText('Seat T-01 is yours').count()))
    const lost = await Promise.all(
      pages.map((page) => sheet(page).getByText('Seat T-01 was just taken.').count()),
    )
    assert.deepEqual([won[0]! + won[1]!, lost[0]! + lost[1]!], [1, 1])
  })
  const loser = (await sheet(pages[0]!).getByText('was just taken').count()) === 1 ? 0 : 1
  const page = pages[loser]!
  await checkAxe(page, 'the sheet of a lost seat')
  await sheet(page)
    .getByRole('button', { name: /^Book T-02 until/ })
    .click()
  await sheet(page).getByText('Seat T-02 is yours until').waitFor()
  assert.deepEqual(
    (await upcoming([one, two][loser]!)).map((r) => r.seat?.id),
    [id(branch, 1)],
  )
})

test('a sheet that is open changes at once when another user takes the seat, or frees it', async (b) => {
  const [student, other, branch] = await Promise.all([newStudent(), newStudent(), newBranch({ seats: 2 })])
  const page = await b.page({ as: student })
  await open(page, branch, id(branch))
  await sheet(page).getByRole('button', { name: bookButton }).waitFor()
  const { id: reservation } = await book(other, id(branch))
  await sheet(page).getByText('Seat T-01 was just taken.').waitFor()
  await sheet(page).getByText('taken until').waitFor()
  assert.equal(await sheet(page).getByRole('button', { name: bookButton }).count(), 0)
  await ok(
    other.api.POST('/v1/reservations/{reservationId}:cancel', {
      params: { path: { reservationId: reservation } },
      body: {},
    }),
  )
  await sheet(page).getByText('Seat T-01 is free again.').waitFor()
  await sheet(page).getByRole('button', { name: bookButton }).waitFor()
})

test('a user waits for a taken seat, gets the offer on another page, and claims it', async (b) => {
  const [student, other, branch] = await Promise.all([newStudent(), newStudent(), newBranch({ seats: 1 })])
  const { id: reservation } = await book(other, id(branch), { minutes: 120 })
  const page = await b.page({ as: student, device: 'phone' })
  await page.goto(`/?branch=${branch.code}`)
  await page.getByText('No seat that matches is free').waitFor()
  await page.locator('.empty').getByRole('button', { name: 'Show taken seats' }).click()
  await row(page, id(branch)).click()
  await sheet(page).getByText('No other seat is free').waitFor()
  await sheet(page).getByRole('button', { name: 'Tell me when it is free' }).click()
  await sheet(page).getByText('You are waiting for this seat: place 1').waitFor()
  await checkAxe(page, 'the sheet of a seat with a waitlist')
  await sheet(page).getByRole('button', { name: 'Close' }).click()
  await page.getByRole('link', { name: 'Scan' }).click()
  await page.getByRole('heading', { level: 1 }).waitFor()
  await ok(
    other.api.POST('/v1/reservations/{reservationId}:cancel', {
      params: { path: { reservationId: reservation } },
      body: {},
    }),
  )
  const offer = page.locator('.offer')
  await offer.getByText('Seat T-01 is free for you').waitFor()
  assert.match((await offer.getByRole('timer').textContent()) ?? '', /Held for another \d+:\d\d/)
  await until(async () =>
    assert.match(
      (await page.locator('[aria-live=assertive]').textContent()) ?? '',
      /Seat T-01 is free for you/,
    ),
  )
  await offer.getByRole('button', { name: 'Take the seat' }).click()
  await offer.waitFor({ state: 'detached' })
  assert.deepEqual(
    (await upcoming(student)).map((r) => [r.seat?.id, r.status]),
    [[id(branch), 'RESERVATION_STATUS_CONFIRMED']],
  )
})

test('a booking whose answer is lost is repeated when the connection is back, and made once', async (b) => {
  const [student, branch] = await Promise.all([newStudent(), newBranch({ seats: 2 })])
  const page = await b.page({ as: student, faults: true })
  await open(page, branch, id(branch))
  await sheet(page).getByRole('button', { name: bookButton }).waitFor()
  const keys: string[] = []
  await page.route('**/v1/reservations', async (route) => {
    if (route.request().method() !== 'POST') return route.continue()
    keys.push(route.request().headers()['idempotency-key'] ?? '')
    if (keys.length > 1) return route.continue()
    await route.fetch() // the server books the seat, and the page loses its network before the answer
    await page.context().setOffline(true)
    await route.abort('internetdisconnected')
  })
  await sheet(page).getByRole('button', { name: bookButton }).click()
  await sheet(page).getByText('it is not known whether the reservation was made').waitFor()
  assert.equal(await sheet(page).getByText('is yours until').count(), 0)
  assert.equal((await upcoming(student)).length, 1)
  await page.context().setOffline(false)
  await sheet(page).getByText('Seat T-01 is yours until').waitFor()
  assert.ok(keys.length >= 2)
  assert.equal(new Set(keys).size, 1)
  assert.equal((await upcoming(student)).length, 1)
})

test('on a phone the filters show in each language that they go on', async (b) => {
  const branch = await newBranch({
    seats: 2,
    areas: ['Hall', 'Quiet'],
    seat: () => ({ amenities: ['AMENITY_POWER_OUTLET', 'AMENITY_WINDOW'] }),
  })
  for (const language of ['en', 'de', 'zh'] as const) {
    const page = await b.page({ device: 'phone', language })
    await page.goto(`/?branch=${branch.code}`)
    const first = page.locator('.filters button:has(svg)').first()
    await first.waitFor()
    const box = await first.boundingBox()
    assert.ok(box !== null && box.x < 390 - 40, `${language}: the first amenity is at ${box?.x} px of 390`)
  }
})

test('filters, time and view are in the address: back, reload and a link work', async (b) => {
  const [other, branch] = await Promise.all([
    newStudent(),
    newBranch({
      seats: 6,
      areas: ['Hall', 'Quiet'],
      seat: (i) => ({ amenities: i % 2 === 0 ? ['AMENITY_POWER_OUTLET'] : ['AMENITY_MONITOR'] }),
    }),
  ])
  const page = await b.page({ device: 'phone' })
  await page.goto(`/?branch=${branch.code}`)
  const labels = (): Promise<string[]> => page.locator('.seat-row strong').allTextContents()
  await until(async () => assert.equal((await labels()).length, 6))
  await page.getByRole('button', { name: 'Power outlet', exact: true }).click()
  await until(async () => assert.deepEqual(await labels(), ['T-01', 'T-03', 'T-05']))
  await page.getByLabel('Area').selectOption('Quiet')
  await until(async () => assert.deepEqual(await labels(), ['T-05']))
  await page.getByText('1 of 1 seats free').waitFor()
  await page.reload()
  await until(async () => assert.deepEqual(await labels(), ['T-05']))

  // The seat is taken at another time, and free now.
  await book(other, id(branch, 4), { start: 120, minutes: 60 })
  const at = new Intl.DateTimeFormat('en-GB', {
    timeZone: branch.zone,
    dateStyle: 'short',
    timeStyle: 'short',
  })
  const [day = '', clock = ''] = at.format(new Date(Date.now() + 150 * 60_000)).split(', ')
  const date = day.split('/').reverse().join('-')
  await page.getByRole('button', { name: 'Another time' }).click()
  await page.getByLabel('Date').fill(date)
  await page.getByLabel('Start').fill(clock)
  await page.getByLabel('Duration').selectOption('60')
  await page.getByText('0 of 1 seats free').waitFor()
  await page.goBack()
  await page.getByText('1 of 1 seats free').waitFor()
  await page.goForward()
  await page.getByText('0 of 1 seats free').waitFor()

  const link = page.url()
  const friend = await b.page()
  await friend.goto(link)
  await friend.getByText('0 of 1 seats free').waitFor()
  await friend.getByRole('button', { name: 'Show taken seats' }).first().click()
  await row(friend, id(branch, 4)).getByText('taken').waitFor()

  await page.getByRole('button', { name: 'Map' }).click()
  await mark(page, id(branch, 4)).waitFor()
  await page.goto('/')
  await page.locator('.map').waitFor() // the view is remembered on this device
})

test('the map works with the keyboard alone, and has the names of the list', async (b) => {
  const [student, branch] = await Promise.all([newStudent(), newBranch({ seats: 12, plan: true })])
  await book(student, id(branch, 3))
  const page = await b.page({ as: student })
  await page.goto(`/?branch=${branch.code}&taken=1`)
  await mark(page, id(branch)).waitFor()
  await until(async () =>
    assert.match((await mark(page, id(branch, 3)).getAttribute('aria-label')) ?? '', /yours/),
  )
  for (const s of branch.seats) {
    assert.equal(
      await mark(page, s.id).getAttribute('aria-label'),
      await row(page, s.id).getAttribute('aria-label'),
    )
  }
  assert.equal(await page.locator('.map [tabindex="0"]').count(), 1)
  const focused = (): Promise<string | null> =>
    page.evaluate(() => document.activeElement?.getAttribute('data-id') ?? null)
  // Seats T-01 and T-02 are on one side of a table, T-03 and T-04 on the other.
  await page.locator('.map [tabindex="0"]').focus()
  assert.equal(await focused(), id(branch, 0))
  await page.keyboard.press('ArrowRight')
  assert.equal(await focused(), id(branch, 1))
  await page.keyboard.press('ArrowDown')
  assert.equal(await focused(), id(branch, 3))
  await page.keyboard.press('ArrowLeft')
  assert.equal(await focused(), id(branch, 2))
  await page.keyboard.type('t-11')
  assert.equal(await focused(), id(branch, 10))
  assert.equal(await page.locator('.map [tabindex="0"]').count(), 1)
  await page.keyboard.press('Enter')
  await sheet(page).getByRole('heading', { name: 'Seat T-11' }).waitFor()
  await page.keyboard.press('Escape')
  await sheet(page).waitFor({ state: 'detached' })
  await until(async () => assert.equal(await focused(), id(branch, 10)))
  // The map is one tab stop.
  const inMap = (): Promise<boolean> =>
    page.evaluate(() => document.activeElement?.closest('.map-scroll') !== null)
  await page.keyboard.press('Tab')
  assert.equal(await inMap(), false)
  await page.keyboard.press('Shift+Tab')
  assert.equal(await focused(), id(branch, 10))
  await page.keyboard.press('Shift+Tab')
  assert.equal(await inMap(), false)
})

test('an own reservation at the same time is shown with the next step', async (b) => {
  const [student, branch] = await Promise.all([newStudent(), newBranch({ seats: 2 })])
  await book(student, id(branch), { minutes: 240 })
  const page = await b.page({ as: student })
  await open(page, branch, id(branch, 1))
  await sheet(page).getByText('Your reservation: seat T-01').waitFor()
  await sheet(page).getByRole('button', { name: bookButton }).click()
  await sheet(page).getByText('You have another reservation at that time.').waitFor()
  await sheet(page).getByRole('link', { name: 'To my seats' }).first().click()
  await page.waitForURL('/me')
})

test('the limits of a policy bound the choice of the end', async (b) => {
  const [student, branch, { api }] = await Promise.all([newStudent(), newBranch({ seats: 1 }), admin()])
  const policy = { branch: branch.code, rules: { maxReservation: '5400s' } }
  await ok(api.POST('/v1/admin/policies', { body: { policy, reason: 'test' } }))
  const page = await b.page({ as: student })
  await open(page, branch, id(branch))
  await until(async () => {
    const ends = await sheet(page).locator('.chip.end small').allTextContents()
    assert.ok(ends.length >= 2 && ends.every((e) => !/^[2-9] h/.test(e)), ends.join())
  })
  await sheet(page).getByRole('button', { name: bookButton }).click()
  await sheet(page).getByText('Seat T-01 is yours until').waitFor()
})

test('a closure cancels a reservation: the page says so at once, with the note and another seat', async (b) => {
  const [student, branch, { api }] = await Promise.all([
    newStudent(),
    newBranch({ seats: 4, areas: ['Hall', 'Quiet'] }),
    admin(),
  ])
  await book(student, id(branch))
  const page = await b.page({ as: student, language: 'de' })
  await page.goto(`/?branch=${branch.code}`)
  await row(page, id(branch)).getByText('Ihr Platz').waitFor()
  const body = {
    branch: branch.code,
    area: 'Hall',
    startTime: inMinutes(0),
    endTime: inMinutes(90),
    reason: 'water',
  }
  const note = { en: 'The ceiling leaks.', de: 'Die Decke ist undicht.' }
  await ok(
    api.POST('/v1/admin/closures', {
      body: { ...body, note, onBookings: 'BOOKING_ACTION_CANCEL', expectedReservations: 1 },
    }),
  )
  const item = page.locator('.news .item')
  await item.getByText('Die Bibliothek hat Ihre Reservierung von Platz T-01').waitFor()
  await item.getByText('Die Decke ist undicht.').waitFor()
  await checkAxe(page, 'a cancelled reservation')
  await item.getByRole('link', { name: 'Platz T-03 ansehen' }).click()
  await sheet(page).getByRole('heading', { name: 'Platz T-03' }).waitFor()
  await page.keyboard.press('Escape')
  await item.getByRole('button', { name: 'Schließen' }).click()
  await item.waitFor({ state: 'detached' })
})

test('no accessibility violation in list, map and sheet', async (b) => {
  const [student, other, branch] = await Promise.all([
    newStudent(),
    newStudent(),
    newBranch({ seats: 12, plan: true, areas: ['Hall', 'Quiet'] }),
  ])
  const { api } = await admin()
  const out = { label: 'T-12', area: 'Quiet', outOfService: true }
  await ok(
    api.POST('/v1/admin/branches/{branch}/seats', {
      params: { path: { branch: branch.code } },
      body: { seats: [out], reason: 'broken' },
    }),
  )
  await book(student, id(branch))
  await book(other, id(branch, 1))
  for (const [device, theme, view] of [
    ['phone', 'light', 'list'],
    ['phone', 'dark', 'map'],
    ['narrow', 'light', 'map'],
    ['desktop', 'light', 'map'],
    ['desktop', 'dark', 'map'],
  ] as const) {
    const page = await b.page({ as: student, device, theme })
    await page.goto(`/?branch=${branch.code}&view=${view}&taken=1`)
    await (view === 'map' ? mark(page, id(branch)) : row(page, id(branch))).waitFor()
    await checkAxe(page, `${view} on ${device}, ${theme}`)
    const width = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)
    assert.equal(width, 0, `${device} scrolls sideways`)
    await page.goto(`/?branch=${branch.code}&seat=${id(branch, 2)}`)
    await sheet(page).getByRole('button', { name: bookButton }).waitFor()
    await checkAxe(page, `sheet on ${device}, ${theme}`)
  }
})

test('the map zooms with its buttons, the wheel and two fingers, and is moved with the mouse', async (b) => {
  const branch = await newBranch({ seats: 240, plan: true })
  const page = await b.page()
  await page.goto(`/?branch=${branch.code}`)
  const first = mark(page, id(branch))
  await first.waitFor()
  const width = async (): Promise<number> => (await first.locator('.shape').boundingBox())?.width ?? 0
  const before = await width()
  await page.getByRole('button', { name: 'Zoom in' }).click()
  const larger = await width()
  assert.ok(larger > before * 1.3, `${before} ${larger}`)
  await page.getByRole('button', { name: 'Show all' }).click()
  assert.ok((await width()) < larger)

  // The wheel with Ctrl zooms at the pointer: the seat under it stays there.
  for (let i = 0; i < 3; i++) await page.getByRole('button', { name: 'Zoom in' }).click()
  const view = (await page.locator('.map-scroll').boundingBox())!
  await page.locator('.map-scroll').evaluate((e) => e.scrollTo(0, 0))
  const at = await first.locator('.shape').boundingBox()
  const [x, y] = [at!.x + at!.width / 2, at!.y + at!.height / 2]
  await page.mouse.move(x, y)
  await page.keyboard.down('Control')
  await page.mouse.wheel(0, -120)
  await page.keyboard.up('Control')
  await until(async () => assert.ok((await width()) > at!.width * 1.2))

  // Dragging moves the map and opens no seat.
  await page.locator('.map-scroll').evaluate((e) => e.scrollTo(200, 100))
  const scrolled = (): Promise<number[]> =>
    page.locator('.map-scroll').evaluate((e) => [e.scrollLeft, e.scrollTop].map(Math.round))
  const from = await scrolled()
  await page.mouse.move(view.x + 300, view.y + 200)
  await page.mouse.down()
  await page.mouse.move(view.x + 340, view.y + 230, { steps: 4 })
  await page.mouse.up()
  const to = await scrolled()
  assert.deepEqual([from[0]! - to[0]!, from[1]! - to[1]!], [40, 30], `from ${from.join()}`)
  assert.equal(await sheet(page).count(), 0)

  const touch = await b.page({ device: 'phone' })
  await touch.goto(`/?branch=${branch.code}&view=map`)
  const shape = mark(touch, id(branch)).locator('.shape')
  await shape.waitFor()
  const small = (await shape.boundingBox())!.width
  const box = (await touch.locator('.map-scroll').boundingBox())!
  const cdp = await touch.context().newCDPSession(touch)
  const fingers = (type: 'touchStart' | 'touchMove' | 'touchEnd', distance: number) =>
    cdp.send('Input.dispatchTouchEvent', {
      type,
      touchPoints:
        type === 'touchEnd'
          ? []
          : [-1, 1].map((d, i) => ({ x: box.x + 180 + d * distance, y: box.y + 150, id: i })),
    })
  await fingers('touchStart', 30)
  for (const d of [40, 50, 60]) await fingers('touchMove', d)
  await fingers('touchEnd', 0)
  await until(async () => {
    const large = (await shape.boundingBox())!.width
    assert.ok(Math.abs(large / small - 2) < 0.2, `${small} ${large}`)
  })
  assert.equal(await sheet(touch).count(), 0)
})

test('the page tells when the branch opens, its other days, and its announcement', async (b) => {
  const [branch, { api }] = await Promise.all([newBranch({ seats: 2 }), admin()])
  const params = { path: { branch: branch.code } }
  const dayOf = (days: number): string =>
    new Intl.DateTimeFormat('sv-SE', { timeZone: branch.zone }).format(Date.now() + days * 86_400_000)
  const weekday = (days: number): number => new Date(`${dayOf(days)}T00:00:00Z`).getUTCDay() || 7
  // Open tomorrow from 09:30 to 18:00, and not today.
  const hours = [{ weekday: weekday(1), opens: '09:30', closes: '18:00' }]
  await ok(api.POST('/v1/admin/branches/{branch}/hours', { params, body: { hours, reason: 'test' } }))
  const days = { firstDay: dayOf(2), lastDay: dayOf(2), open: [{ opens: '10:00', closes: '24:00' }] }
  await ok(api.POST('/v1/admin/branches/{branch}/days', { params, body: { ...days, reason: 'test' } }))
  const text = { en: 'Exam weeks: please be quiet.', de: 'Prüfungszeit: bitte leise.' }
  await ok(api.POST('/v1/admin/branches/{branch}/announcement', { params, body: { text, reason: 'test' } }))
  const page = await b.page()
  await page.goto(`/?branch=${branch.code}`)
  await page.getByText(/^Closed, opens at .*09:30$/).waitFor()
  await page.getByText('Exam weeks: please be quiet.').waitFor()
  await page.getByText(/: open 10:00 to 24:00$/).waitFor()
  await page.locator('.map .seat.closed').first().waitFor()
  // The proposed time is the next opening.
  await page.locator('.empty').getByRole('button', { name: 'Choose another time' }).click()
  await page.getByText('2 of 2 seats free').waitFor()
  assert.equal(await page.getByLabel('Start').inputValue(), '09:30')
  assert.equal(await page.getByLabel('Date').inputValue(), dayOf(1))
  await row(page, id(branch)).getByText('free until').waitFor()
  assert.match((await row(page, id(branch)).textContent()) ?? '', /18:00/)
})
