import assert from 'node:assert/strict'
import type { Page } from 'playwright-core'

/** checkOverflow fails if the page scrolls sideways, or if an element sticks out of it. */
export async function checkOverflow(page: Page): Promise<void> {
  const found = await page.evaluate(() => {
    const width = document.documentElement.clientWidth
    const out: string[] = []
    for (const e of document.querySelectorAll('body *')) {
      const box = e.getBoundingClientRect()
      if (box.width === 0 || (box.right <= width + 1 && box.left >= -1)) continue
      // Inside an element that scrolls by itself, such as a table or the map, this is right.
      let inside = false
      for (let p = e.parentElement; p !== null && !inside; p = p.parentElement) {
        const { overflowX, position } = getComputedStyle(p)
        inside = ['auto', 'scroll', 'hidden', 'clip'].includes(overflowX) || position === 'fixed'
      }
      if (!inside && !e.matches('.visually-hidden, .visually-hidden *, .skip')) {
        out.push(`<${e.tagName.toLowerCase()} class="${e.className}"> ends at ${Math.round(box.right)} px`)
      }
    }
    return { scrolls: document.documentElement.scrollWidth - width, out: out.slice(0, 5) }
  })
  assert.ok(found.scrolls <= 0, `the page is ${found.scrolls} px too wide: ${found.out.join('; ')}`)
  assert.deepEqual(found.out, [], 'elements stick out of the page')
}

/** Controls that are used often have 44 px; see base.css. axe checks the least of 24 px. */
const mainControls =
  '.button, .icon-button, .chip, header nav a, input:not([type=checkbox], [type=radio]), select, .seat-row'

/** checkTargets fails if a main control is less than 44 px high. */
export async function checkTargets(page: Page): Promise<void> {
  const small = await page.evaluate((controls) => {
    const found: string[] = []
    for (const e of document.querySelectorAll(controls)) {
      const { width, height } = e.getBoundingClientRect()
      if (width === 0 || height === 0 || getComputedStyle(e).visibility === 'hidden') continue
      if (e.closest('.visually-hidden') !== null) continue
      if (height < 43.5) found.push(`${e.tagName} "${(e.textContent ?? '').slice(0, 40)}": ${height} px high`)
    }
    return found
  }, mainControls)
  assert.deepEqual(small, [], 'controls are too small')
}

/**
 * checkTranslated fails if the page, opened with ?pseudo, has a text that does not come from the texts of
 * the language. data are names and other texts of the library, which are not translated.
 */
export async function checkTranslated(page: Page, data: readonly string[]): Promise<void> {
  const texts = await page.evaluate(() => {
    const found: string[] = []
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
    for (let n = walker.nextNode(); n !== null; n = walker.nextNode()) {
      // The names of the API, such as columns of a file, are code.
      const untranslated = 'script, style, noscript, [hidden], code, pre, samp, [translate=no]'
      if (n.parentElement?.closest(untranslated) === null) found.push(n.nodeValue ?? '')
    }
    for (const e of document.querySelectorAll('[aria-label], [title], [placeholder], [alt]')) {
      for (const name of ['aria-label', 'title', 'placeholder', 'alt']) found.push(e.getAttribute(name) ?? '')
    }
    return found
  })
  const names = [...new Set(data)].sort((a, b) => b.length - a.length)
  const left = texts.map((t) => plain(t, names)).filter((t) => /\p{L}{2,}/u.test(t))
  assert.deepEqual([...new Set(left)], [], 'texts are not translated')
  assert.ok(
    texts.some((t) => t.includes('⟦')),
    'the page has no marked text',
  )
}

/** Texts that are the same in all languages, or come from Intl. */
const neutral = new RegExp(
  [
    'English|Deutsch|中文', // languages by their own names
    '(Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day|(Mon|Tue|Wed|Thu|Fri|Sat|Sun)',
    'January|February|March|April|June|July|August|September|October|November|December',
    'Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sept?|Oct|Nov|Dec',
    '[\\w.-]+@[\\w.-]+', // e-mail addresses
    'https?://\\S+',
    '\\b(hrs?|mins?|secs?|days?)\\b', // of Intl.DurationFormat
    '\\b(KB|MB|cm|h|AM|PM|CSV|QR|UTC|GMT)\\b',
    '\\bscreen [0-9a-f]{10}\\b', // names of keys of tests
    '\\bEurope/Berlin\\b',
    '\\bdlsms-[\\w-]+',
  ].join('|'),
  'g',
)

/** plain returns what remains of a text without marked texts, data and neutral words. */
function plain(text: string, names: readonly string[]): string {
  let rest = text
  for (let before = ''; before !== rest;) {
    before = rest
    rest = rest.replace(/⟦[^⟦⟧]*⟧/g, ' ')
  }
  for (const n of names) rest = rest.replaceAll(n, ' ')
  return rest.replace(neutral, ' ').trim()
}

/**
 * checkSvgContrast fails if a text on a map has a contrast below 4.5 (3 for large text), or the outline of
 * a seat one below 3 to its surroundings. axe does not look at texts in SVG.
 */
export async function checkSvgContrast(page: Page): Promise<void> {
  const faults = await page.evaluate(() => {
    type Color = [number, number, number, number]
    const context = document.createElement('canvas').getContext('2d', { willReadFrequently: true })
    if (context === null) throw new Error('the browser has no canvas')
    const read = (css: string): Color => {
      context.clearRect(0, 0, 1, 1)
      context.fillStyle = css
      context.fillRect(0, 0, 1, 1)
      const [r = 0, g = 0, b = 0, a = 0] = context.getImageData(0, 0, 1, 1).data
      return [r, g, b, a / 255]
    }
    const over = (top: Color, below: Color): Color => {
      const a = top[3]
      const mix = (i: 0 | 1 | 2): number => top[i] * a + below[i] * (1 - a)
      return [mix(0), mix(1), mix(2), 1]
    }
    const luminance = (c: Color): number => {
      const part = (v: number): number =>
        v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4
      return 0.2126 * part(c[0]) + 0.7152 * part(c[1]) + 0.0722 * part(c[2])
    }
    const contrast = (a: Color, b: Color): number => {
      const [x, y] = [luminance(a), luminance(b)]
      return (Math.max(x, y) + 0.05) / (Math.min(x, y) + 0.05)
    }
    /** painted returns the colour that an element paints, or undefined. */
    const painted = (e: Element, what: 'fill' | 'stroke' = 'fill'): Color | undefined => {
      const style = getComputedStyle(e)
      const css =
        e instanceof SVGGeometryElement || e instanceof SVGTextElement ? style[what] : style.backgroundColor
      if (css === 'none' || css === '') return undefined
      const color = read(css)
      color[3] *= Number(style.opacity)
      return color[3] === 0 ? undefined : color
    }
    for (const e of document.querySelectorAll<SVGElement>('.map svg *')) e.style.pointerEvents = 'all'
    /** ground returns the colour at a point below an element and its own group. */
    const ground = (x: number, y: number, below: (e: Element) => boolean): Color => {
      const stack = document.elementsFromPoint(x, y).filter(below)
      let color: Color = read(getComputedStyle(document.documentElement).backgroundColor)
      for (const e of stack.reverse()) {
        const c = painted(e)
        if (c !== undefined) color = over(c, color)
      }
      return color
    }
    const faults: string[] = []
    for (const text of document.querySelectorAll<SVGTextElement>('.map .map-scroll text')) {
      if (text.closest('.off') !== null || getComputedStyle(text).display === 'none') continue
      const box = text.getBoundingClientRect()
      const [x, y] = [box.left + box.width / 2, box.top + box.height / 2]
      if (x < 0 || y < 0 || x > innerWidth || y > innerHeight || box.width === 0) continue
      const color = painted(text)
      if (color === undefined) continue
      const background = ground(x, y, (e) => !(e instanceof SVGTextElement))
      const scale = text.getScreenCTM()?.a ?? 1
      const style = getComputedStyle(text)
      const size = parseFloat(style.fontSize) * scale
      const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700)
      const ratio = contrast(over(color, background), background)
      if (ratio < (large ? 3 : 4.5)) {
        const where = text.closest('.seat')?.getAttribute('class') ?? text.getAttribute('class')
        faults.push(`text "${text.textContent}" of ${where}: ${ratio.toFixed(2)}`)
      }
    }
    for (const shape of document.querySelectorAll<SVGGeometryElement>('.map .seat .shape')) {
      const seat = shape.closest('.seat')
      if (seat === null || seat.matches('.off')) continue
      const box = shape.getBoundingClientRect()
      const background = ground(box.left + box.width / 2, box.top + box.height / 2, (e) => !seat.contains(e))
      const line = painted(shape, 'stroke')
      const ratio = line === undefined ? 1 : contrast(over(line, background), background)
      if (ratio < 3) faults.push(`outline of ${seat.getAttribute('class')}: ${ratio.toFixed(2)}`)
    }
    return [...new Set(faults)]
  })
  assert.deepEqual(faults, [], 'contrast is too low')
}
