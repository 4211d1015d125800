// Runs alone: `make screenshots` runs it and writes docs/screenshots. `make test-web` leaves it out.
import assert from 'node:assert/strict'
import { mkdirSync, writeFileSync } from 'node:fs'
import { admin, book, demoScreenKey, inMinutes, login, ok, visitor, type Person } from './harness/api.ts'
import { settle } from './harness/axe.ts'
import { pixelsOf } from './harness/codes.ts'
import { test, type Page, type PageOptions } from './harness/browser.ts'
import { png } from './harness/png.ts'
import { idle } from './harness/steps.ts'

/** The tests run in the directory of the repository. */
const directory = 'docs/screenshots'

interface Shot {
  name: string
  path: string
  as?: Person
  then?: (page: Page) => Promise<void>
}

test(
  'screenshots of the main pages',
  async (b) => {
    const students = await Promise.all(
      Array.from({ length: 10 }, (_, i) => login(`S20210${String(i + 1).padStart(2, '0')}`)),
    )
    const [librarian, desk] = await Promise.all([login('L0001'), login('D0001')])
    const { seats } = await ok(visitor.GET('/v1/seats', { params: { query: { branch: 'main' } } }))
    const [me] = students
    assert.ok(me !== undefined)
    for (const [i, student] of students.entries()) {
      const seat = seats[(i * 3 + 2) % seats.length]
      if (seat !== undefined) await book(student, seat.id, { minutes: 60 + i * 15 })
    }
    await book(me, seats[20]?.id ?? '', { start: 26 * 60, minutes: 120 })
    for (const s of students.slice(1, 5)) {
      const { reservations } = await ok(s.api.GET('/v1/reservations'))
      const params = { path: { reservationId: reservations[0]?.id ?? '' } }
      await ok(s.api.POST('/v1/reservations/{reservationId}:checkIn', { params, body: {} }))
    }
    const text = { en: 'The reading room is open until midnight during the exams.' }
    await ok(
      (await admin()).api.POST('/v1/admin/branches/{branch}/announcement', {
        params: { path: { branch: 'main' } },
        body: { text, until: inMinutes(24 * 60) },
      }),
    )
    const query = { branch: 'main', availableOnly: true }
    const { seats: unused } = await ok(visitor.GET('/v1/seats', { params: { query } }))
    const free = unused.find((s) => s.amenities.length > 1)

    const everywhere: Shot[] = [
      { name: 'now', path: '/?branch=main', as: me },
      {
        name: 'seat',
        path: `/?branch=main&seat=${free?.id ?? ''}`,
        as: me,
        then: (p) => p.getByRole('dialog').waitFor(),
      },
      { name: 'me', path: '/me', as: me, then: (p) => p.locator('section.present').waitFor() },
    ]
    const phone: Shot[] = [
      { name: 'map', path: '/?branch=main&view=map', as: me },
      { name: 'scan', path: '/scan', as: me },
    ]
    const desktop: Shot[] = [
      { name: 'desk', path: '/desk?branch=main', as: desk },
      {
        name: 'admin',
        path: '/admin?branch=main',
        as: librarian,
        then: (p) => p.getByText('…', { exact: true }).first().waitFor({ state: 'detached' }),
      },
      { name: 'editor', path: '/admin/map?branch=main', as: librarian },
      { name: 'reports', path: '/admin/reports?branch=main', as: librarian },
      { name: 'screen', path: '/screen', then: startScreen },
    ]
    mkdirSync(directory, { recursive: true })
    let bytes = 0
    for (const device of ['phone', 'desktop'] as const) {
      for (const shot of [...everywhere, ...(device === 'phone' ? phone : desktop)]) {
        for (const theme of ['light', 'dark'] as const) {
          const options: PageOptions = { device, theme, context: { deviceScaleFactor: 1 } }
          const page = await b.page(shot.as === undefined ? options : { ...options, as: shot.as })
          await page.goto(shot.path)
          if (shot.then === undefined) await idle(page)
          await shot.then?.(page)
          await idle(page)
          await settle(page)
          const file = png(await pixelsOf(page))
          writeFileSync(`${directory}/${shot.name}-${device}-${theme}.png`, file)
          bytes += file.length
          await page.context().close()
        }
      }
    }
    console.log(`web: ${(bytes / 1000).toFixed(0)} KB of screenshots`)
    assert.ok(bytes < 1_000_000, 'the screenshots are too large for the repository')
  },
  { timeout: 300_000 },
)

async function startScreen(page: Page): Promise<void> {
  await page.getByLabel('Service key').fill(demoScreenKey)
  await page.getByRole('button', { name: 'Start the display' }).click()
  await page.getByRole('img', { name: 'QR code' }).waitFor()
}
