import assert from 'node:assert/strict'
import { decodeQR } from 'qr/decode.js'
import {
  ApiError,
  book,
  login,
  newBranch,
  newStaff,
  newStudent,
  ok,
  unique,
  visitor,
  type Branch,
} from './harness/api.ts'
import { checkAxe } from './harness/axe.ts'
import { test, type Browsers, type Locator, type Page, type PageOptions } from './harness/browser.ts'
import { until } from './harness/until.ts'

/** openSection opens a section of the librarian's page for a branch. */
async function openSection(
  b: Browsers,
  section: string,
  branch: Branch,
  options: PageOptions = {},
): Promise<Page> {
  const page = await b.page({ as: options.as ?? (await login('A0001')), ...options })
  await page.goto(`/admin/${section}?branch=${branch.code}`)
  return page
}

/** placeOf returns the place of a seat on the plan, as the API has it. */
async function placeOf(
  branch: Branch,
  label: string,
): Promise<{ x?: number; y?: number; angle?: number; desk?: string }> {
  const { seats } = await ok(
    visitor.GET('/v1/branches/{branch}/plan', { params: { path: { branch: branch.code } } }),
  )
  const id = (await seatsOf(branch)).find((s) => s.label === label)?.id
  const place = seats.find((s) => s.seatId === id)
  assert(place !== undefined, `the plan has no seat ${label}`)
  return {
    ...(place.xCm === undefined ? {} : { x: place.xCm }),
    ...(place.yCm === undefined ? {} : { y: place.yCm }),
    ...(place.angle === undefined ? {} : { angle: place.angle }),
    desk: place.desk,
  }
}

async function seatsOf(
  branch: Branch,
): Promise<{ id: string; label: string; area: string; amenities: string[]; outOfService: boolean }[]> {
  return (await ok(visitor.GET('/v1/seats', { params: { query: { branch: branch.code } } }))).seats
}

/** chooseFile gives a file to the import. */
async function chooseFile(page: Page, lines: readonly string[]): Promise<void> {
  const buffer = Buffer.from(lines.join('\n') + '\n')
  await page.locator('input[type=file]').setInputFiles({ name: 'seats.csv', mimeType: 'text/csv', buffer })
}

/** spoken waits until a live region has said a text. */
async function spoken(page: Page, text: RegExp): Promise<void> {
  await page.locator('[aria-live]').filter({ hasText: text }).first().waitFor({ state: 'attached' })
}

async function centre(of: Locator): Promise<{ x: number; y: number }> {
  const box = await of.boundingBox()
  assert(box !== null)
  return { x: box.x + box.width / 2, y: box.y + box.height / 2 }
}

test('an import of a faulty file shows each fault beside its line', async (b) => {
  const branch = await newBranch({ seats: 2 })
  const page = await openSection(b, 'import', branch)
  const evil = `${branch.code},<img src=x onerror=alert(1)>,T-04,monitor,1,2,360`
  await chooseFile(page, [
    'branch,area,label,amenities,x_cm,y_cm,angle',
    `${branch.code},Hall,T-01,power_outlt,1,2,3`,
    `${branch.code},Hall,T-02,,1,,3`,
    `${branch.code},Hall,T-03,,ten,2,3`,
    evil,
    `no-such-branch,Hall,T-05,,1,2,3`,
  ])
  await page.getByRole('heading', { name: '5 faults' }).waitFor()
  const faults = page.locator('.faults li')
  for (const [i, place, line, cell] of [
    [0, 'Line 2, amenities:', 'T-01', 'power_outlt'],
    [1, 'Line 3, y_cm:', 'T-02', ''],
    [2, 'Line 4, x_cm:', 'T-03', 'ten'],
    [3, 'Line 5, angle:', '<img src=x onerror=alert(1)>', '360'],
    [4, 'Line 6, branch:', 'T-05', 'no-such-branch'],
  ] as const) {
    const text = (await faults.nth(i).textContent()) ?? ''
    assert(text.includes(place) && text.includes(line), text)
    if (cell !== '') assert.equal(await faults.nth(i).locator('mark').textContent(), cell)
  }
  assert.equal(await page.getByRole('button', { name: /^Import:/ }).count(), 0)
  assert.equal((await seatsOf(branch)).length, 2)
  await checkAxe(page)
})

test('an import of 30 seats shows its changes first, and makes them', async (b) => {
  const branch = await newBranch({ seats: 3 })
  const page = await openSection(b, 'import', branch)
  const header = 'branch,area,label,amenities,out_of_service'
  const fresh = Array.from(
    { length: 28 },
    (_, i) => `${branch.code},"Annex, upstairs",N-${i + 1},window,false`,
  )
  const lines = [
    header,
    `${branch.code},Hall,T-01,monitor|window,false`,
    `${branch.code},Hall,T-02,,false`,
    ...fresh,
  ]
  await chooseFile(page, lines)
  await page.getByText('28 new, 1 changed, 0 retired, 1 unchanged', { exact: true }).waitFor()
  const changed = page.locator('details', { hasText: 'Changed: 1' }).getByRole('row', { name: /T-01/ })
  assert.match((await changed.textContent()) ?? '', /Amenities: None → monitor\|window/)
  assert.equal(await page.locator('details', { hasText: 'New: 28' }).getByRole('row').count(), 29)
  assert.equal(
    await page.getByRole('rowheader', { name: 'T-02' }).count(),
    0,
    'unchanged seats are not listed',
  )
  assert.equal((await seatsOf(branch)).length, 3, 'the dry run has changed seats')

  // Another librarian changes a seat of the file after the dry run.
  const { api } = await login('L0001')
  const params = { path: { branch: branch.code } }
  const seats = [{ label: 'T-02', area: 'Hall', amenities: ['AMENITY_MONITOR' as const] }]
  await ok(api.POST('/v1/admin/branches/{branch}/seats', { params, body: { seats } }))
  await page.getByRole('button', { name: 'Import: 28 new, 1 changed, 0 retired' }).click()
  await page.getByText('28 new, 2 changed, 0 retired, 0 unchanged', { exact: true }).waitFor()
  assert.equal((await seatsOf(branch)).length, 3, 'an import of another preview was made')

  await page.getByRole('button', { name: 'Import: 28 new, 2 changed, 0 retired' }).click()
  await page.getByText('The file was imported: 28 new, 2 changed, 0 retired.').first().waitFor()
  const now = await seatsOf(branch)
  assert.equal(now.length, 31)
  assert.deepEqual(now.find((s) => s.label === 'T-01')?.amenities, ['AMENITY_MONITOR', 'AMENITY_WINDOW'])
  assert.equal(now.find((s) => s.label === 'N-28')?.area, 'Annex, upstairs')
})

test('an export is a file that the import finds unchanged, and retiring missing seats is shown', async (b) => {
  const branch = await newBranch({
    seats: 3,
    plan: true,
    seat: (i) => (i === 2 ? { label: '=1+1', area: '-Basement' } : {}),
  })
  const page = await openSection(b, 'import', branch)
  const download = page.waitForEvent('download')
  await page.getByRole('button', { name: 'Export the seats' }).click()
  const path = await (await download).path()
  await page.locator('input[type=file]').setInputFiles(path)
  await page.getByText('0 new, 0 changed, 0 retired, 3 unchanged', { exact: true }).waitFor()
  // The choice is made while the file is checked, so it needs another check.
  let chosen = (): void => {}
  const choice = new Promise<void>((done) => (chosen = done))
  await page.route('**/v1/admin/seats:import*', async (request) => {
    await choice
    await request.continue()
  })
  await chooseFile(page, ['branch,label', `${branch.code},T-01`])
  await page.getByLabel(/^Retire the seats that the file does not have/).check()
  chosen()
  await page.getByRole('button', { name: 'Import: 0 new, 0 changed, 2 retired' }).click()
  await page.getByText('The file was imported: 0 new, 0 changed, 2 retired.').first().waitFor()
  assert.deepEqual(
    (await seatsOf(branch)).map((s) => s.label),
    ['T-01'],
  )
})

test('the floor plan editor works by keyboard: select, move, undo, redo, save', async (b) => {
  const branch = await newBranch({
    seats: 4,
    plan: true,
    seat: () => ({ amenities: ['AMENITY_MONITOR'], outOfService: true }),
  })
  const page = await openSection(b, 'map', branch)
  const canvas = page.getByRole('listbox', { name: 'Floor plan' })
  await canvas.waitFor()
  await page.getByRole('searchbox', { name: 'Select' }).focus()
  for (let i = 0; i < 4 && !(await canvas.evaluate((e) => e === document.activeElement)); i++)
    await page.keyboard.press('Tab')
  assert(await canvas.evaluate((e) => e === document.activeElement), 'Tab does not reach the plan')

  // T-01 is at 200, 200 and T-02 at 320, 200. The grid is 25 cm.
  await page.keyboard.press('ArrowRight')
  await page
    .getByRole('option', { name: 'T-02, Hall, Out of service: 3.20 m from the left, 2.00 m from the top.' })
    .waitFor()
  await page.keyboard.press('Enter')
  assert.equal(await page.locator('.plan-canvas [aria-selected=true]').getAttribute('data-label'), 'T-02')
  await page.keyboard.press('ArrowRight')
  await page.keyboard.press('ArrowRight')
  await page.keyboard.press('Shift+ArrowDown')
  await spoken(page, /T-02: 3\.70 m from the left, 2\.01 m from the top/)
  await page.keyboard.press('Control+z')
  await spoken(page, /Undone\. T-02: 3\.70 m from the left, 2\.00 m from the top/)
  await page.keyboard.press('Control+z')
  await page.keyboard.press('Control+y')
  await until(async () => assert.equal(await page.getByLabel('From the left (cm)').inputValue(), '370'))
  assert.deepEqual(
    await placeOf(branch, 'T-02'),
    { x: 320, y: 200, angle: 180, desk: 'T1' },
    'saved without Save',
  )

  await page.keyboard.press('Control+s')
  await page.getByText('The places of 1 seat were saved.').first().waitFor()
  assert.deepEqual(await placeOf(branch, 'T-02'), { x: 370, y: 200, angle: 180, desk: 'T1' })
  const seat = (await seatsOf(branch)).find((s) => s.label === 'T-02')
  assert.deepEqual([seat?.amenities, seat?.outOfService, seat?.area], [['AMENITY_MONITOR'], true, 'Hall'])
  await page.reload()
  await canvas.waitFor()
  await page.getByRole('searchbox', { name: 'Select' }).fill('t-02')
  await page.keyboard.press('Enter')
  assert.equal(await page.getByLabel('From the left (cm)').inputValue(), '370')

  // A button that disappears takes the focus with it. The keys still work.
  await page.getByRole('button', { name: 'Take off the plan' }).click()
  await page.getByRole('button', { name: 'Save 1 change' }).waitFor()
  await page.keyboard.press('Control+z')
  await page.getByRole('button', { name: 'Everything is saved' }).waitFor()
  await checkAxe(page)
})

test('seats are dragged, selected with a box, aligned, turned and duplicated', async (b) => {
  const branch = await newBranch({ seats: 4, plan: true })
  const page = await openSection(b, 'map', branch)
  const seat = (label: string): Locator => page.locator(`[data-label="${label}"]`)
  await seat('T-01').waitFor()
  await page.locator('.plan-canvas').scrollIntoViewIfNeeded()
  const from = await centre(seat('T-01'))
  const other = await centre(seat('T-02'))
  const cm = (other.x - from.x) / 120
  await page.mouse.move(from.x, from.y)
  await page.mouse.down()
  await page.mouse.move(from.x - 40 * cm, from.y - 60 * cm, { steps: 4 })
  await page.mouse.move(from.x - 101 * cm, from.y - 99 * cm, { steps: 4 })
  await page.mouse.up()
  const x = page.getByLabel('From the left (cm)')
  assert.deepEqual(
    [await x.inputValue(), await page.getByLabel('From the top (cm)').inputValue()],
    ['100', '100'],
  )

  // A box around T-02 and T-04, which are at 320, and not around T-01 and T-03.
  const below = await centre(seat('T-04'))
  await page.mouse.move(other.x - 60 * cm, other.y - 70 * cm)
  await page.mouse.down()
  await page.mouse.move(below.x + 60 * cm, below.y + 70 * cm, { steps: 4 })
  await page.mouse.up()
  assert.deepEqual(
    await page
      .locator('.plan-canvas [aria-selected=true]')
      .evaluateAll((all) => all.map((e) => e.getAttribute('data-label'))),
    ['T-02', 'T-04'],
  )
  await page.getByRole('button', { name: 'Align in a row' }).click()
  await page.getByRole('button', { name: 'Turn right by 90°' }).click()
  await page.getByRole('button', { name: 'Duplicate' }).click()
  await seat('T-06').waitFor()
  await page.getByRole('button', { name: /^Save \d+ changes$/ }).click()
  await page.getByText('The places of 5 seats were saved.').first().waitFor()
  assert.deepEqual(await placeOf(branch, 'T-01'), { x: 100, y: 100, angle: 180, desk: 'T1' })
  const [two, four, five] = [
    await placeOf(branch, 'T-02'),
    await placeOf(branch, 'T-04'),
    await placeOf(branch, 'T-05'),
  ]
  assert.deepEqual([two.angle, four.angle], [270, 90])
  assert.equal(five.desk, 'T2', 'the copy has a desk of its own')
  assert.equal((await seatsOf(branch)).find((s) => s.label === 'T-05')?.area, 'Hall')
})

test('a finger drags a seat and moves the plan, and two fingers enlarge it', async (b) => {
  const branch = await newBranch({ seats: 4, plan: true })
  const page = await openSection(b, 'map', branch, { device: 'phone' })
  const seat = page.locator('[data-label="T-01"]')
  await seat.waitFor()
  await page.locator('.plan-canvas').scrollIntoViewIfNeeded()
  const cdp = await page.context().newCDPSession(page)
  const touch = async (
    type: 'touchStart' | 'touchMove' | 'touchEnd',
    ...at: { x: number; y: number }[]
  ): Promise<void> => {
    await cdp.send('Input.dispatchTouchEvent', { type, touchPoints: at.map((p, id) => ({ ...p, id })) })
  }
  const start = await centre(seat)
  const right = await centre(page.locator('[data-label="T-02"]'))
  const cm = (right.x - start.x) / 120
  await touch('touchStart', start)
  await touch('touchMove', { x: start.x - 50 * cm, y: start.y })
  await touch('touchMove', { x: start.x - 99 * cm, y: start.y })
  await touch('touchEnd')
  assert.equal(await page.getByLabel('From the left (cm)').inputValue(), '100')

  const canvas = await page.locator('.plan-canvas').boundingBox()
  assert(canvas !== null)
  const empty = { x: canvas.x + 40, y: canvas.y + canvas.height - 40 }
  const before = await centre(seat)
  await touch('touchStart', empty)
  await touch('touchMove', { x: empty.x + 60, y: empty.y - 50 })
  await touch('touchEnd')
  const panned = await centre(seat)
  assert(
    Math.abs(panned.x - before.x - 60) < 2 && Math.abs(panned.y - before.y + 50) < 2,
    JSON.stringify([before, panned]),
  )

  const size = (await seat.locator('rect').first().boundingBox())?.width ?? 0
  const fingers = (half: number): { x: number; y: number }[] => [
    { x: empty.x + 100 - half, y: empty.y },
    { x: empty.x + 100 + half, y: empty.y },
  ]
  await touch('touchStart', ...fingers(20))
  await touch('touchMove', ...fingers(40))
  await touch('touchEnd')
  const larger = (await seat.locator('rect').first().boundingBox())?.width ?? 0
  assert(larger / size > 1.8 && larger / size < 2.2, `the plan is ${larger / size} times as large`)
  assert.equal(
    await page.getByRole('button', { name: 'Save 1 change' }).count(),
    1,
    'the fingers have moved a seat',
  )
})

test('seats without a place are placed in rows by keyboard, and dragged from the tray', async (b) => {
  const branch = await newBranch({ seats: 13 })
  const page = await openSection(b, 'map', branch)
  await page.getByRole('heading', { name: 'Seats without a place (13)' }).waitFor()
  const chip = await centre(page.getByRole('button', { name: 'T-13' }))
  const canvas = await page.locator('.plan-canvas').boundingBox()
  assert(canvas !== null)
  await page.mouse.move(chip.x, chip.y)
  await page.mouse.down()
  await page.mouse.move(canvas.x + canvas.width / 2, canvas.y + canvas.height / 2, { steps: 5 })
  await page.locator('.plan-ghost').waitFor()
  await page.mouse.up()
  await page.getByRole('option', { name: /^T-13/ }).waitFor()
  await page.getByRole('button', { name: 'Select all 12' }).press('Enter')
  await page.getByRole('button', { name: 'Place 12 seats in rows' }).press('Enter')
  await page.getByRole('button', { name: 'Save 13 changes' }).press('Enter')
  await page.getByText('The places of 13 seats were saved.').first().waitFor()
  const first = await placeOf(branch, 'T-01')
  assert(first.x !== undefined && first.y !== undefined)
  assert.deepEqual(await placeOf(branch, 'T-06'), { x: first.x + 500, y: first.y, desk: '' })
  assert.deepEqual(await placeOf(branch, 'T-12'), { x: first.x + 500, y: first.y + 100, desk: '' })
})

test('the editor refuses to save over a change of another librarian, and keeps the other changes', async (b) => {
  const branch = await newBranch({ seats: 4, plan: true })
  const page = await openSection(b, 'map', branch)
  await page.getByRole('searchbox', { name: 'Select' }).fill('T-01 T-02')
  await page.keyboard.press('Enter')
  const { api } = await login('L0001')
  const params = { path: { branch: branch.code } }
  const seats = [{ label: 'T-01', area: 'Hall', xCm: 990, yCm: 880, desk: 'Theirs' }]
  await ok(api.POST('/v1/admin/branches/{branch}/seats', { params, body: { seats } }))
  await page.getByRole('button', { name: 'Down' }).click()
  await page.getByRole('button', { name: 'Save 2 changes' }).click()
  await page
    .getByRole('alert')
    .filter({ hasText: 'Another person has changed these seats since you opened the page: T-01.' })
    .waitFor()
  assert.deepEqual(await placeOf(branch, 'T-01'), { x: 990, y: 880, desk: 'Theirs' })
  assert.equal((await placeOf(branch, 'T-02')).y, 200, 'a part of the changes was saved')
  await page.getByRole('button', { name: /keep my other changes/ }).click()
  await page.getByRole('button', { name: 'Save 1 change' }).click()
  await page.getByText('The places of 1 seat were saved.').first().waitFor()
  assert.deepEqual(await placeOf(branch, 'T-01'), { x: 990, y: 880, desk: 'Theirs' })
  assert.equal((await placeOf(branch, 'T-02')).y, 225)
})

test('the editor asks before it loses changes', async (b) => {
  const branch = await newBranch({ seats: 4, plan: true })
  const page = await openSection(b, 'map', branch)
  const asked: string[] = []
  let answer = false
  page.on('dialog', (d) => {
    asked.push(d.message())
    void (answer ? d.accept() : d.dismiss())
  })
  await page.getByRole('searchbox', { name: 'Select' }).fill('T-01')
  await page.keyboard.press('Enter')
  await page.getByRole('button', { name: 'Right', exact: true }).click()
  await page.getByRole('link', { name: 'My seats' }).click()
  await until(() => assert.equal(asked.length, 1))
  assert.match(asked[0] ?? '', /not saved/)
  assert.match(page.url(), /\/admin\/map/)
  await page.getByRole('button', { name: 'Save 1 change' }).waitFor()
  answer = true
  await page.getByRole('link', { name: 'My seats' }).click()
  await page.waitForURL(/\/me$/)
})

test('1,000 seats: an arrow key moves a seat within 100 ms of work', async (b) => {
  const branch = await newBranch({ seats: 1000, plan: true })
  const page = await openSection(b, 'map', branch)
  await page.getByRole('searchbox', { name: 'Select' }).fill('T-0500')
  await page.keyboard.press('Enter')
  await page.locator('.plan-canvas').focus()
  const cdp = await page.context().newCDPSession(page)
  await cdp.send('Performance.enable', { timeDomain: 'threadTicks' }) // the time of this page alone
  const busy = async (): Promise<number> => {
    const { metrics } = await cdp.send('Performance.getMetrics')
    return (metrics.find((m) => m.name === 'TaskDuration')?.value ?? Number.NaN) * 1000
  }
  const before = await busy()
  const keys = 20
  for (let i = 1; i <= keys; i++) {
    await page.keyboard.press('ArrowRight')
    await page
      .locator(`[data-label="T-0500"][transform^="translate(${1920 + i * 25} "]`)
      .waitFor({ state: 'attached' })
  }
  const each = ((await busy()) - before) / keys
  console.log(`1,000 seats on the plan: an arrow key takes ${each.toFixed(1)} ms of the page's time`)
  assert(each < 100, `an arrow key takes ${each} ms`)
})

test('labels print 24 on a page of A4, and their QR codes open the seats', async (b) => {
  const branch = await newBranch({ seats: 30, areas: ['Hall', 'Annex'] })
  const page = await openSection(b, 'labels', branch, { theme: 'dark' })
  await page.getByRole('button', { name: 'Make 30 labels' }).click()
  await page.getByRole('button', { name: 'Print 2 sheets' }).waitFor()
  assert.deepEqual(
    await page.locator('.label-sheet').evaluateAll((all) => all.map((s) => s.children.length)),
    [24, 6],
  )
  await checkAxe(page)

  const codes = await page.locator('.label svg').evaluateAll((all) =>
    all.map((s) => ({
      path: s.querySelector('path')?.getAttribute('d') ?? '',
      side: s.getAttribute('viewBox') ?? '',
      label: s.nextElementSibling?.querySelector('strong')?.textContent,
    })),
  )
  for (const { path, side, label } of [codes[0], codes[29]].filter((c) => c !== undefined)) {
    const text = decode(path, Number(side.split(' ')[2]))
    const found = /^HTTPS?:\/\/[^/]+\/S\/([A-Z0-9]+)$/.exec(text)
    assert(found !== null, text)
    const { seat } = await ok(
      visitor.GET('/v1/labels/{code}', { params: { path: { code: found[1] ?? '' } } }),
    )
    assert.deepEqual([seat?.label, seat?.branch], [label, branch.code])
    const opened = await page.request.get(new URL(text).pathname)
    assert.equal(opened.status(), 200)
  }

  const pdf = (await page.pdf({ preferCSSPageSize: true })).toString('latin1')
  assert.equal(pdf.match(/\/Type\s*\/Page\b(?!s)/g)?.length, 2, 'pages')
  const sizes = [...pdf.matchAll(/\/MediaBox\s*\[0 0 ([\d.]+) ([\d.]+)\]/g)].map((m) => [
    Math.round(Number(m[1])),
    Math.round(Number(m[2])),
  ])
  assert.deepEqual(sizes, [
    [595, 842],
    [595, 842],
  ])
  await page.emulateMedia({ media: 'print' })
  for (const hidden of ['.top', 'h1', '.section-nav', '.no-print'])
    assert(!(await page.locator(hidden).first().isVisible()), hidden)
  const box = await page.locator('.label').nth(23).boundingBox()
  assert(box !== null)
  const mm = 96 / 25.4
  // The last label of the sheet ends at the right edge, and at 8.5 mm + 8 * 35 mm from the top.
  for (const [is, wanted] of [
    [box.width, 70],
    [box.height, 35],
    [box.x + box.width, 210],
    [box.y + box.height, 288.5],
  ] as const) {
    assert(Math.abs(is / mm - wanted) < 0.1, `${is / mm} mm, wanted ${wanted} mm`)
  }
})

/** decode reads the QR code of a path of squares, as a scanner would. */
function decode(path: string, side: number): string {
  const scale = 4
  const quiet = 4
  const width = side * scale
  const data = new Uint8ClampedArray(width * width * 4).fill(255)
  // The path is such as m3 0h2v1h-2z: each square begins at a distance from the one before it.
  let x = 0
  let y = 0
  for (const [, dx, dy, w] of path.matchAll(/m(-?\d+) (\d+)h(\d+)v1h-\d+z/g)) {
    x += Number(dx)
    y += Number(dy)
    for (let py = 0; py < scale; py++) {
      for (let px = 0; px < Number(w) * scale; px++) {
        const at = (((y + quiet) * scale + py) * width + (x + quiet) * scale + px) * 4
        data.fill(0, at, at + 3)
      }
    }
  }
  return decodeQR({ width, height: width, data })
}

test('retiring a seat shows the reservations first, and cancels them', async (b) => {
  const branch = await newBranch({ seats: 3 })
  const student = await newStudent('Rosa <b>Retired</b>')
  const seat = branch.seats[0]
  assert(seat !== undefined)
  const reservation = await book(student, seat.id, { start: 60 })
  const page = await openSection(b, 'seats', branch)
  await page.getByRole('checkbox', { name: 'T-01' }).check()
  await page.getByRole('button', { name: 'Retire' }).click()
  const dialog = page.getByRole('dialog', { name: 'Retire 1 seat' })
  await dialog.getByText('1 reservation is affected.').waitFor()
  await dialog.getByRole('cell', { name: 'Rosa <b>Retired</b>' }).waitFor()

  // Another reservation between the preview and the confirmation: the new preview is shown.
  const second = await newStudent('Sam Second')
  await book(second, seat.id, { start: 180 })
  await dialog.getByLabel('English').fill('The chair is broken.')
  await dialog.getByRole('button', { name: 'Retire and cancel 1 reservation' }).click()
  await dialog.getByText('2 reservations are affected.').waitFor()
  assert.equal((await seatsOf(branch)).length, 3)
  await dialog.getByRole('button', { name: 'Retire and cancel 2 reservations' }).click()
  await page.getByText('1 seat was retired.').first().waitFor()
  await page.getByRole('rowheader', { name: 'T-01' }).waitFor({ state: 'detached' })
  await page.locator('.seats-selection:focus').waitFor() // the button that had the focus was removed
  assert.deepEqual((await seatsOf(branch)).map((s) => s.label).sort(), ['T-02', 'T-03'])
  await until(async () => {
    const params = { path: { reservationId: reservation.id } }
    const answer = await ok(student.api.GET('/v1/reservations/{reservationId}', { params }))
    assert.equal(answer.reservation?.status, 'RESERVATION_STATUS_CANCELLED')
  })
})

test('many seats are added at once, and changed at once without a loss of their other values', async (b) => {
  const branch = await newBranch({ seats: 1 })
  const page = await openSection(b, 'seats', branch)
  await page.getByRole('button', { name: 'Add seats' }).click()
  let dialog = page.getByRole('dialog', { name: 'Add seats' })
  await dialog.getByLabel('Area').fill('Hall')
  await dialog.getByLabel('First label').fill('T-00')
  await dialog.getByLabel('Number').fill('30')
  await dialog.getByText('Adds 30 seats: T-00 to T-29.').waitFor()
  await dialog.getByRole('button', { name: 'Add 30 seats' }).click()
  await dialog
    .getByRole('alert')
    .filter({ hasText: 'These labels exist already: T-01. Nothing was added.' })
    .waitFor()
  assert.equal((await seatsOf(branch)).length, 1)
  await dialog.getByLabel('First label').fill('H-01')
  await dialog.getByLabel('Power outlet').check()
  await dialog.getByRole('button', { name: 'Add 30 seats' }).click()
  await page.getByText('30 seats were added.').first().waitFor()
  const added = (await seatsOf(branch))
    .filter((s) => s.amenities.includes('AMENITY_POWER_OUTLET'))
    .map((s) => s.label)
    .sort()
  assert.deepEqual([added.length, added[0], added[29]], [30, 'H-01', 'H-30'])

  await page.getByLabel('Label, area or desk').fill('h-0')
  await page.getByRole('button', { name: 'Select all 9 shown' }).click()
  await page.getByRole('checkbox', { name: 'H-09' }).uncheck()
  await page.getByLabel('Label, area or desk').fill('t-01')
  await page.getByRole('checkbox', { name: 'T-01' }).check()
  await page.getByRole('button', { name: 'Edit', exact: true }).first().click()
  dialog = page.getByRole('dialog', { name: 'Edit 9 seats' })
  const outlet = dialog.getByLabel('Power outlet')
  assert(
    await outlet.evaluate((e) => (e as HTMLInputElement).indeterminate),
    'T-01 has none, the others have one',
  )
  await dialog.getByLabel('Window').check()
  await dialog.getByRole('textbox', { name: 'Desk (optional)' }).fill('Long table')
  await dialog.getByRole('button', { name: 'Save' }).click()
  await page.getByText('9 seats were changed.').first().waitFor()
  const now = await seatsOf(branch)
  assert.deepEqual(now.find((s) => s.label === 'T-01')?.amenities, ['AMENITY_WINDOW'])
  assert.deepEqual(now.find((s) => s.label === 'H-01')?.amenities, ['AMENITY_POWER_OUTLET', 'AMENITY_WINDOW'])
  assert.deepEqual(now.find((s) => s.label === 'H-09')?.amenities, ['AMENITY_POWER_OUTLET'])
  assert.equal((await placeOf(branch, 'H-08')).desk, 'Long table')
})

test('a seat goes out of service with a preview of its reservations', async (b) => {
  const branch = await newBranch({ seats: 2, seat: (i) => (i === 1 ? { label: "'=2" } : {}) })
  const student = await newStudent('Olga Out')
  const reservation = await book(student, branch.seats.find((s) => s.label === 'T-01')?.id ?? '', {
    start: 60,
  })
  const page = await openSection(b, 'seats', branch)
  await page.getByRole('button', { name: 'Edit T-01' }).click()
  await page.getByLabel('Out of service: cannot be reserved').check()
  await page.getByRole('button', { name: 'Continue' }).click()
  const dialog = page.getByRole('dialog', { name: 'Take 1 seat out of service' })
  await dialog.getByText('1 reservation is affected.').waitFor()
  await dialog.getByLabel('Cancel them').check()
  await dialog.getByRole('button', { name: 'Save and cancel 1 reservation' }).click()
  await page.getByText('1 seat was changed.').first().waitFor()
  assert.equal((await seatsOf(branch)).find((s) => s.label === 'T-01')?.outOfService, true)
  await until(async () => {
    const params = { path: { reservationId: reservation.id } }
    const answer = await ok(student.api.GET('/v1/reservations/{reservationId}', { params }))
    assert.equal(answer.reservation?.status, 'RESERVATION_STATUS_CANCELLED')
  })

  // A text that a spreadsheet program would take for a formula stays as it is.
  await page.getByRole('button', { name: "Edit '=2" }).click()
  await page.getByRole('textbox', { name: 'Desk (optional)' }).fill("'-1")
  await page.getByRole('button', { name: 'Save' }).click()
  await until(async () => assert.equal((await placeOf(branch, "'=2")).desk, "'-1"))
})

test('an area keeps its floor when it is renamed, and joins another one only with a warning', async (b) => {
  const branch = await newBranch({ seats: 4, areas: ['Hall', 'Annex'] })
  const page = await openSection(b, 'seats', branch)
  await page.getByRole('button', { name: 'Edit area Hall' }).click()
  await page.getByRole('textbox', { name: 'Floor (optional)' }).fill('2')
  await page.getByRole('button', { name: 'Save' }).click()
  await page.getByRole('row', { name: 'Hall 2 2 Edit area Hall' }).waitFor()
  await page.getByRole('button', { name: 'Edit area Hall' }).click()
  await page.getByRole('textbox', { name: 'Name' }).fill('Great Hall')
  await page.getByRole('button', { name: 'Save' }).click()
  await page.getByRole('row', { name: 'Great Hall 2 2 Edit area Great Hall' }).waitFor()
  await page.getByRole('button', { name: 'Edit area Annex' }).click()
  await page.getByRole('textbox', { name: 'Name' }).fill('Great Hall')
  await page.getByText('Great Hall exists already').waitFor()
  await page.getByRole('button', { name: 'Join the areas' }).click()
  await page.getByRole('row', { name: /Great Hall .*4 Edit area Great Hall/ }).waitFor()
  assert.deepEqual([...new Set((await seatsOf(branch)).map((s) => s.area))], ['Great Hall'])
})

test('an admin creates and renames a branch; a librarian of one branch sees neither branches nor keys', async (b) => {
  const branch = await newBranch({ seats: 1 })
  const page = await openSection(b, 'seats', branch)
  await page.getByRole('button', { name: 'Add a branch' }).click()
  const code = unique('law-')
  await page.getByRole('textbox', { name: 'Name' }).fill('Law')
  await page.getByLabel('Code').fill(branch.code)
  await page.getByText('A branch has this code already.').waitFor()
  await page.getByLabel('Code').fill(code)
  await page.getByLabel('Time zone').fill('Mars/Olympus')
  await page.getByRole('button', { name: 'Save' }).click()
  await page.locator('.field-fault').waitFor()
  await page.getByLabel('Time zone').fill('Asia/Shanghai')
  await page.getByRole('button', { name: 'Save' }).click()
  await page.waitForURL(new RegExp(`branch=${code}`))
  await page.getByText('This branch has no seats yet.').first().waitFor()
  const { branches } = await ok(visitor.GET('/v1/branches'))
  assert.equal(branches.find((x) => x.code === code)?.timezone, 'Asia/Shanghai')

  const librarian = await newStaff('ROLE_LIBRARIAN', [branch.code])
  const other = await openSection(b, 'seats', branch, { as: librarian })
  await other.getByRole('rowheader', { name: 'T-01' }).waitFor()
  assert.equal(await other.getByRole('heading', { name: 'Branches' }).count(), 0)
  await other.goto(`/admin/screens?branch=${branch.code}`)
  await other.getByText('This branch has no screen.').waitFor()
  assert.equal(await other.getByRole('heading', { name: 'Service keys' }).count(), 0)
})

test('screens are added, renamed and switched off; a key is shown once and can be ended', async (b) => {
  const branch = await newBranch({ seats: 1 })
  const page = await openSection(b, 'screens', branch, {
    context: { permissions: ['clipboard-read', 'clipboard-write'] },
  })
  await page.getByRole('button', { name: 'Add a screen' }).click()
  await page.getByRole('textbox', { name: 'Name' }).fill('Entrance')
  await page.getByRole('button', { name: 'Save' }).click()
  await page.getByRole('button', { name: 'Rename Entrance' }).click()
  await page.getByRole('textbox', { name: 'Name' }).fill('Hall door')
  await page.getByRole('button', { name: 'Save' }).click()
  await page.getByRole('button', { name: 'Switch off Hall door' }).click()
  await page.getByRole('dialog').getByRole('button', { name: 'Switch off' }).click()
  await page
    .getByRole('listitem')
    .filter({ hasText: 'Hall door' })
    .getByText('Off', { exact: true })
    .waitFor()
  const { api } = await login('A0001')
  const { screens } = await ok(
    api.GET('/v1/admin/branches/{branch}/screens', { params: { path: { branch: branch.code } } }),
  )
  assert.deepEqual(
    screens.map((s) => [s.name, s.off]),
    [['Hall door', true]],
  )

  await page.getByRole('button', { name: 'Make a key' }).click()
  let dialog = page.getByRole('dialog')
  await dialog.getByLabel('Name of the program').fill('Display')
  await dialog.getByRole('button', { name: 'Make a key' }).click()
  dialog = page.getByRole('dialog', { name: 'The key of Display' })
  const secret = (await dialog.locator('.secret').textContent()) ?? ''
  assert.match(secret, /^dlsms-key-/)
  await dialog.getByRole('button', { name: 'Copy', exact: true }).click()
  await dialog.getByText('Copied.').waitFor()
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), secret)
  await checkAxe(page)
  await dialog.getByRole('button', { name: 'I have copied it' }).click()
  await page.getByRole('button', { name: 'End the key Display' }).waitFor()
  assert(!(await page.content()).includes(secret), 'the key is still in the page')
  await page.reload()
  await page.getByRole('button', { name: 'End the key Display' }).waitFor()
  assert(!(await page.content()).includes(secret), 'the key is shown again')

  await page.getByRole('button', { name: 'Make a key' }).click()
  await page.getByRole('dialog').getByLabel('Name of the program').fill('Display')
  await page.getByRole('dialog').getByRole('button', { name: 'Make a key' }).click()
  await page.getByRole('alert').filter({ hasText: 'has this name already' }).waitFor()
  await page.getByRole('dialog').getByRole('button', { name: 'Cancel' }).click()
  await page.getByRole('button', { name: 'End the key Display' }).click()
  await page.getByRole('dialog').getByRole('button', { name: 'End', exact: true }).click()
  await page.getByText('1 ended key').waitFor()
  const { keys } = await ok(api.GET('/v1/admin/keys'))
  assert(keys.find((k) => k.branch === branch.code)?.revokedAt !== undefined)
})

test('the sections have no violation of axe, and no page is wider than a narrow window', async (b) => {
  const branch = await newBranch({
    seats: 6,
    plan: true,
    areas: ['Hall', 'Annex'],
    seat: (i) => (i === 5 ? ({ xCm: undefined, yCm: undefined, angle: undefined } as never) : {}),
  })
  const admin = await login('A0001')
  for (const [device, theme] of [
    ['phone', 'light'],
    ['desktop', 'dark'],
    ['narrow', 'light'],
  ] as const) {
    const page = await b.page({ as: admin, device, theme })
    for (const section of ['seats', 'map', 'import', 'labels', 'screens']) {
      await page.goto(`/admin/${section}?branch=${branch.code}`)
      await page.locator('.section button').first().waitFor()
      if (section === 'map') {
        await page.getByRole('searchbox', { name: 'Select' }).fill('T-0')
        await page.keyboard.press('Enter')
      }
      await checkAxe(page, `${section} ${device} ${theme}`)
      const wider = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)
      assert(wider <= 0, `${section} is ${wider} px wider than a ${device} window`)
    }
  }
})

test('a student has no section of librarians', async (b) => {
  const branch = await newBranch({ seats: 1 })
  const student = await newStudent()
  const page = await openSection(b, 'seats', branch, { as: student })
  await page.getByText('Your role does not allow this.').waitFor()
  await assert.rejects(
    ok(student.api.GET('/v1/admin/branches')),
    (e) => e instanceof ApiError && e.status === 403,
  )
})
