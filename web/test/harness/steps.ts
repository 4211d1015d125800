import { text } from '../../src/i18n/en/index.ts'
import type { Person } from './api.ts'
import type { Page } from 'playwright-core'

interface SignInOptions {
  stay?: boolean
  /** Path of the page after the sign-in. */
  next?: string
}

/** signIn signs in on the page /login, which is in English, and returns when the next page shows the name. */
export async function signIn(page: Page, person: Person, options: SignInOptions = {}): Promise<void> {
  await page.goto(`/login?next=${encodeURIComponent(options.next ?? '/settings')}`)
  await page.getByLabel(text.account.studentId).fill(person.studentId)
  await page.getByLabel(text.account.password, { exact: true }).fill(person.password)
  if (options.stay === true) await page.getByLabel(text.account.stay).check()
  await page.getByRole('main').getByRole('button', { name: text.common.signIn }).click()
  await page.getByRole('banner').getByRole('link', { name: person.name }).waitFor()
}

/** Paths of the pages that each role can open, with the pages of the roles before. */
export const paths = {
  visitor: ['/', '/me', '/scan', '/login', '/register', '/settings', '/nothing'],
  student: ['/', '/me', '/scan', '/settings'],
  staff: ['/desk'],
  librarian: [
    '/admin',
    '/admin/seats',
    '/admin/map',
    '/admin/import',
    '/admin/labels',
    '/admin/hours',
    '/admin/closures',
    '/admin/policies',
    '/admin/announcement',
    '/admin/reports',
  ],
  admin: ['/admin/people', '/admin/screens', '/admin/audit'],
} as const

/** idle waits until the page shows its heading, and nothing that loads. */
export async function idle(page: Page): Promise<void> {
  await page.locator('h1').first().waitFor()
  await page.waitForFunction(async () => {
    // A page may begin to load its parts a moment after its heading is shown.
    for (let frames = 0; frames < 5; frames++) {
      await new Promise((done) => requestAnimationFrame(done))
      if (document.querySelector('.loading, [aria-busy="true"]') !== null) return false
    }
    return true
  })
}
