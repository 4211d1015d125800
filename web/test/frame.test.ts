import assert from 'node:assert/strict'
import { newStudent } from './harness/api.ts'
import { checkAxe } from './harness/axe.ts'
import { test } from './harness/browser.ts'

test('the frame has no violation of axe, in both themes and on both devices', async (b) => {
  for (const device of ['phone', 'desktop'] as const) {
    for (const theme of ['light', 'dark'] as const) {
      const page = await b.page({ device, theme })
      await page.goto('/login')
      await page.locator('h1').waitFor()
      await checkAxe(page, `${device} ${theme}`)
    }
  }
})

test('a user with a cookie is signed in after a reload', async (b) => {
  const student = await newStudent('Ada Frame')
  const page = await b.page({ as: student })
  await page.goto('/')
  await page.getByRole('link', { name: 'Ada Frame' }).waitFor()
  await page.reload()
  await page.getByRole('link', { name: 'Ada Frame' }).waitFor()
})

test('a path without a page says so', async (b) => {
  const page = await b.page({ allow: [/status of 404/] })
  const answer = await page.goto('/nothing')
  assert.equal(answer?.status(), 404)
  await page.getByRole('heading', { name: 'There is no such page' }).waitFor()
})
