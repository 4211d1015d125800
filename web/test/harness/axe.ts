import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import type { AxeResults, RunOptions } from 'axe-core'
import type { Page } from 'playwright-core'

const source = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')

const options: RunOptions = {
  runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'],
  rules: { 'target-size': { enabled: true } }, // of WCAG 2.2: off by default
  resultTypes: ['violations'],
}

/** checkAxe fails with the list of violations that axe-core finds on the page. */
export async function checkAxe(page: Page, where = page.url()): Promise<void> {
  await settle(page)
  await page.evaluate(source)
  const { violations } = await page.evaluate(
    (o) => (globalThis as unknown as { axe: { run: (o: RunOptions) => Promise<AxeResults> } }).axe.run(o),
    options,
  )
  if (violations.length === 0) return
  const list = violations.flatMap((v) =>
    v.nodes
      .slice(0, 3)
      .map((n) =>
        [`${v.id}: ${v.help}`, n.target.join(' '), n.html.slice(0, 200), n.failureSummary].join('\n    '),
      ),
  )
  throw new Error(`violations at ${where}:\n  ${list.join('\n  ')}`)
}

/** settle waits until all animations have ended, because axe sees the colours of the moment. */
export async function settle(page: Page): Promise<void> {
  await page.evaluate(async () => {
    const finite = document
      .getAnimations()
      .filter((a) => a.effect?.getComputedTiming().iterations !== Infinity)
    await Promise.allSettled(finite.map((a) => a.finished))
  })
}
