import assert from 'node:assert/strict'
import { text } from './harness/texts.ts'
import { newBranch, newStudent, ok, password, visitor, type Person } from './harness/api.ts'
import { checkAxe, settle } from './harness/axe.ts'
import { newScreen, setRules } from './harness/codes.ts'
import { test, type Browsers, type Page, type PageOptions } from './harness/browser.ts'
import { checkOverflow, checkSvgContrast, checkTargets, checkTranslated } from './harness/layout.ts'
import { idle, paths } from './harness/steps.ts'
import { newWorld, type World } from './harness/world.ts'

let made: Promise<World> | undefined

/** world returns the branch of these tests, which only read it. */
function world(): Promise<World> {
  made ??= newWorld()
  return made
}

/** State is a page in one of its main states. */
interface State {
  name: string
  path: string
  /** Brings the page from its first state to this one. */
  then?: (page: Page) => Promise<void>
}

/** statesOf returns the states of the pages of a role. */
function statesOf(w: World): Record<'visitor' | 'student' | 'staff' | 'librarian' | 'admin', State[]> {
  const of = (list: readonly string[]): State[] => list.map((path) => ({ name: path, path }))
  const now = `/?branch=${w.branch.code}`
  const section = (path: string): State => ({ name: path, path: `${path}?branch=${w.branch.code}` })
  const dialog = async (page: Page): Promise<void> => page.getByRole('dialog').waitFor()
  const seats: State[] = [
    { name: 'Now, list', path: now },
    { name: 'Now, all seats', path: `${now}&taken=1` },
    {
      name: 'Now, map',
      path: `${now}&view=map`,
      then: (page) => page.locator('.map .seat').first().waitFor(),
    },
    { name: 'Now, another time', path: `${now}&date=${tomorrow()}&start=10:00&duration=120` },
    { name: 'sheet of a free seat', path: `${now}&seat=${w.seats.free}`, then: dialog },
    { name: 'sheet of a taken seat', path: `${now}&seat=${w.seats.taken}`, then: dialog },
  ]
  return {
    visitor: [...seats, ...of(paths.visitor.slice(1))],
    student: [
      ...seats,
      { name: 'sheet of the own seat', path: `${now}&seat=${w.seats.mine}`, then: dialog },
      { name: 'sheet of a closed seat', path: `${now}&seat=${w.seats.closed}`, then: dialog },
      { name: 'sheet of a seat out of service', path: `${now}&seat=${w.seats.out}`, then: dialog },
      ...of(['/me', '/scan', '/settings']),
      {
        name: 'label of a free seat',
        path: `/s/${w.label}`,
        then: (page) => page.locator('h2').first().waitFor(),
      },
      {
        name: 'a wrong code',
        path: '/c/UNKNOWN',
        then: (page) => page.locator('main .fault').first().waitFor(),
      },
    ],
    staff: [
      section('/desk'),
      {
        name: 'a person at the desk',
        path: `/desk/${w.student.id}?branch=${w.branch.code}`,
        then: (page) => page.getByText(w.student.studentId).first().waitFor(),
      },
    ],
    librarian: paths.librarian.map(section),
    admin: paths.admin.map(section),
  }
}

function tomorrow(): string {
  return new Date(Date.now() + 24 * 3600_000).toISOString().slice(0, 10)
}

/** Each theme, device and language appears with the others at least once. */
const views: readonly PageOptions[] = [
  { device: 'phone', theme: 'dark', language: 'en' },
  { device: 'desktop', theme: 'light', language: 'en' },
  { device: 'phone', theme: 'light', language: 'de' },
  { device: 'desktop', theme: 'dark', language: 'zh' },
]

/** eachState opens every page in every state, and calls check. It reports the faults of all of them. */
async function eachState(
  b: Browsers,
  states: readonly State[],
  options: PageOptions,
  check: (page: Page, where: string) => Promise<void>,
  query = '',
): Promise<void> {
  // The page that does not exist writes its status to the console.
  const page = await b.page({ ...options, allow: [/status of 404/] })
  const faults: string[] = []
  for (const s of states) {
    const where = [s.name, options.device, options.theme, options.language].filter(Boolean).join(', ')
    try {
      await page.goto(s.path + (query === '' ? '' : (s.path.includes('?') ? '&' : '?') + query))
      await idle(page)
      await s.then?.(page)
      await settle(page)
      await check(page, where)
    } catch (e) {
      faults.push(`${where}: ${e instanceof Error ? e.message : e}`)
    }
  }
  assert.equal(faults.length, 0, `${faults.length} pages have faults:\n${faults.join('\n\n')}`)
}

const roles = ['visitor', 'student', 'staff', 'librarian', 'admin'] as const

function userOf(w: World, role: (typeof roles)[number]): { as?: Person } {
  return role === 'visitor' ? {} : { as: w[role] }
}

for (const role of roles) {
  for (const view of views) {
    test(
      `axe finds nothing on the pages of a ${role}: ${view.device}, ${view.theme}, ${view.language}`,
      async (b) => {
        const w = await world()
        await eachState(b, statesOf(w)[role], { ...view, ...userOf(w, role) }, async (page, where) => {
          await checkAxe(page, where)
          if (view.device === 'phone') await checkTargets(page)
        })
      },
      { timeout: 300_000 },
    )
  }

  test(
    `the pages of a ${role} fit a zoom of 400%`,
    async (b) => {
      const w = await world()
      const options: PageOptions = { device: 'narrow', language: 'de', ...userOf(w, role) }
      await eachState(b, statesOf(w)[role], options, checkOverflow)
    },
    { timeout: 300_000 },
  )

  test(
    `all texts on the pages of a ${role} are translated`,
    async (b) => {
      const w = await world()
      const data = [
        w.branch.name,
        w.branch.code,
        ...w.branch.seats.flatMap((s) => [s.label, s.area]),
        ...[w.student, w.other, w.staff, w.librarian, w.admin].flatMap((p) => [p.name, p.studentId]),
        'The café is closed today.',
        'The lamp is being repaired.',
        'Das Café ist heute geschlossen.',
        '咖啡厅今天关闭。',
        'student_id,name,email,group,card\nS2021001,,,first-year,20001234', // an example of a file
        'Entrance', // of the demo data
      ]
      const check = async (page: Page): Promise<void> => {
        // Other tests make branches at the same time: those of now are at least those on the page.
        const { branches } = await ok(visitor.GET('/v1/branches'))
        await checkTranslated(page, [...data, ...branches.map((branch) => branch.name)])
      }
      await eachState(b, statesOf(w)[role], userOf(w, role), check, 'pseudo')
    },
    { timeout: 300_000 },
  )
}

for (const theme of ['light', 'dark'] as const) {
  test(`texts and shapes on the map have enough contrast: ${theme}`, async (b) => {
    const w = await world()
    const page = await b.page({ theme, as: w.student })
    await page.goto(`/?branch=${w.branch.code}&taken=1`)
    await page.locator('.map .seat').first().waitFor()
    for (const look of ['free', 'mine', 'taken', 'closed', 'out']) {
      assert.ok((await page.locator(`.map .seat.${look}`).count()) > 0, `the map has no seat that is ${look}`)
    }
    await checkSvgContrast(page)
  })
}

test('a journey by keyboard alone: sign in, book, check in by digits, leave', async (b) => {
  const [student, branch] = await Promise.all([newStudent('Kay Board'), newBranch({ seats: 3 })])
  const screen = await newScreen(branch)
  await setRules(branch, { checkIn: 'CHECK_IN_RULE_SCREEN' })
  const page = await b.page()
  await page.goto(`/?branch=${branch.code}`)
  await idle(page)

  /** tab presses Tab until the focus is on a control with that name. The focus must be visible on each control. */
  const tab = async (name: RegExp | string): Promise<void> => {
    const seen: string[] = []
    for (let i = 0; i < 80; i++) {
      await page.keyboard.press('Tab')
      const focus = await page.evaluate(() => {
        const e = document.activeElement
        if (!(e instanceof HTMLElement || e instanceof SVGElement) || e === document.body) return undefined
        const label = e instanceof HTMLInputElement ? e.labels?.[0]?.textContent : undefined
        const shape = e.querySelector('.shape') // a seat on the map shows the focus with its outline
        const { outlineStyle, outlineWidth } = getComputedStyle(e)
        const visible = shape !== null || (outlineStyle !== 'none' && parseFloat(outlineWidth) >= 2)
        const { width, height } = e.getBoundingClientRect()
        const name = (e.ariaLabel ?? label ?? e.textContent ?? '').trim()
        return { name, visible: visible && width > 0 && height > 0 }
      })
      if (focus === undefined) continue
      assert.ok(focus.visible, `the focus on "${focus.name}" is not visible`)
      if (typeof name === 'string' ? focus.name === name : name.test(focus.name)) return
      seen.push(focus.name)
    }
    assert.fail(`Tab does not reach ${name}; it reaches ${seen.join(' | ')}`)
  }

  await tab(/T-01/)
  await page.keyboard.press('Enter')
  await page.getByRole('dialog').waitFor()
  await tab(/Sign in and book/)
  await page.keyboard.press('Enter')
  await page.getByLabel(text.account.studentId).waitFor()
  await tab(text.account.studentId)
  await page.keyboard.type(student.studentId)
  await tab(text.account.password)
  await page.keyboard.type(password)
  await page.keyboard.press('Enter')
  await page
    .getByRole('dialog')
    .getByRole('button', { name: /^Book until/ })
    .waitFor()
  await tab(/^Book until/)
  await page.keyboard.press('Enter')
  await page
    .getByRole('dialog')
    .getByText(/is yours until/)
    .first()
    .waitFor()
  await page.keyboard.press('Escape')
  await page.getByRole('dialog').waitFor({ state: 'detached' })
  await tab(text.common.nav.me)
  await page.keyboard.press('Enter')
  await page.getByRole('heading', { name: text.me.title }).waitFor()
  await tab(text.me.digits)
  await page.keyboard.type(screen.now().digits)
  await page.keyboard.press('Enter')
  await page.getByText(text.common.status.RESERVATION_STATUS_CHECKED_IN, { exact: true }).first().waitFor()
  await tab(text.me.leave)
  await page.keyboard.press('Enter')
  await page.getByRole('dialog').waitFor()
  await tab(text.me.leave)
  await page.keyboard.press('Enter')
  await page.getByText(text.me.empty).waitFor()
})

test('animations stop for users who do not want them', async (b) => {
  const w = await world()
  const page = await b.page({ as: w.student, context: { reducedMotion: 'reduce' } })
  await page.goto(`/?branch=${w.branch.code}&seat=${w.seats.free}`)
  await page.getByRole('dialog').waitFor()
  const moving = await page.evaluate(() =>
    document.getAnimations().map((a) => (a as CSSAnimation).animationName),
  )
  assert.deepEqual(moving, [])
})
