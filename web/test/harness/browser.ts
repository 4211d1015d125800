import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { connect } from 'node:tls'
import { after, test as nodeTest } from 'node:test'
import {
  chromium,
  type Browser,
  type BrowserContext,
  type BrowserContextOptions,
  type Page,
} from 'playwright-core'
import { secureUrl, url, type Person } from './api.ts'

export type { BrowserContext, Locator, Page } from 'playwright-core'

/** Options of a browser of one user. */
export interface PageOptions {
  /** phone: 390x844 with touch; desktop: 1280x800, the default; narrow: 320x640, as a zoom of 400%. */
  device?: 'phone' | 'desktop' | 'narrow'
  theme?: 'light' | 'dark'
  language?: 'en' | 'de' | 'zh'
  /** The user that is signed in, by the cookie that "Stay signed in" sets. */
  as?: Person
  /** Use HTTPS. The browser, in a process of its own, trusts the certificate of the system. */
  secure?: boolean
  /** Network errors and answers of 5xx are expected. */
  faults?: boolean
  /** Errors of the console that are expected. */
  allow?: readonly RegExp[]
  /** Other options of the browser's context, such as permissions. */
  context?: BrowserContextOptions
  /** JavaScript that runs in each page before its own scripts. */
  before?: () => void
  /** More arguments of Chromium. The page then has a browser process of its own. */
  arguments?: readonly string[]
}

const devices: Record<NonNullable<PageOptions['device']>, BrowserContextOptions> = {
  phone: { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true },
  desktop: { viewport: { width: 1280, height: 800 } },
  narrow: { viewport: { width: 320, height: 640 } },
}

/** Browsers opens the browsers of one test, each with its own cookies and storage. */
export interface Browsers {
  /** page opens an empty page of a new browser. page.goto takes a path, such as /me. */
  page(options?: PageOptions): Promise<Page>
}

/** Limit of a test, in milliseconds. */
const limit = 120_000

/**
 * test is a test with browsers. It fails when the code of a page throws, writes an error to the
 * console, or breaks the Content-Security-Policy. A failed test leaves screenshots.
 */
export function test(
  name: string,
  f: (b: Browsers) => Promise<void>,
  options: { timeout?: number } = {},
): void {
  nodeTest(name, { timeout: options.timeout ?? limit }, async () => {
    const session = new Session(name)
    try {
      await f(session)
    } catch (e) {
      await session.shoot()
      throw e
    } finally {
      await session.close()
    }
    session.check()
  })
}

class Session implements Browsers {
  private readonly contexts: BrowserContext[] = []
  private readonly own: Browser[] = []
  private readonly errors: string[] = []

  constructor(private readonly name: string) {}

  async page(options: PageOptions = {}): Promise<Page> {
    const origin = options.secure === true ? secureUrl() : url
    const more = [...(options.arguments ?? []), ...(options.secure === true ? [await trust(origin)] : [])]
    const browser = more.length === 0 ? await shared() : await launch(more)
    if (more.length > 0) this.own.push(browser)
    const context = await browser.newContext({
      ...devices[options.device ?? 'desktop'],
      baseURL: origin,
      locale: { en: 'en-GB', de: 'de-DE', zh: 'zh-CN' }[options.language ?? 'en'],
      colorScheme: options.theme ?? 'light',
      timezoneId: 'America/New_York', // the library is in Berlin: the zone of the device must not matter
      ...(options.as === undefined ? {} : { storageState: stored(origin, options.as.token) }),
      ...options.context,
    })
    this.contexts.push(context)
    context.setDefaultTimeout(20_000)
    context.on('page', (page) => this.watch(page, options))
    if (options.before !== undefined) await context.addInitScript(options.before)
    return context.newPage()
  }

  private watch(page: Page, options: PageOptions): void {
    const report = (text: string): void => {
      if (!(options.allow ?? []).some((r) => r.test(text))) this.errors.push(text)
    }
    page.on('pageerror', (e) => report(`error in ${page.url()}: ${e.stack ?? e.message}`))
    page.on('console', (m) => {
      if (m.type() !== 'error') return
      const from = m.location().url
      if (m.text().startsWith('Failed to load resource')) {
        // The browser writes a line for each answer of 4xx. The API uses them for results such as "the seat is taken".
        if (/status of 4\d\d/.test(m.text()) && new URL(from).pathname.startsWith('/v1/')) return
        if (options.faults === true) return
      }
      report(`console of ${page.url()}: ${m.text()} (${from})`)
    })
  }

  /** shoot takes a screenshot of each open page. */
  async shoot(): Promise<void> {
    const dir = join(process.env['DLSMS_WORK'] ?? '.local/web-test', 'failed')
    mkdirSync(dir, { recursive: true })
    const pages = this.contexts.flatMap((c) => c.pages())
    for (const [i, page] of pages.entries()) {
      const file = join(dir, `${this.name.replace(/\W+/g, '-').slice(0, 80)}-${i + 1}.png`)
      await page.screenshot({ path: file, timeout: 5000 }).catch(() => undefined) // the page may have crashed
    }
    if (this.errors.length > 0) console.error(this.errors.join('\n'))
  }

  async close(): Promise<void> {
    for (const c of this.contexts) await c.close()
    for (const b of this.own) await b.close()
  }

  check(): void {
    if (this.errors.length > 0) throw new Error(`the pages had errors:\n${this.errors.join('\n')}`)
  }
}

/** stored returns the state of a browser whose user has chosen "Stay signed in". */
function stored(origin: string, token: string): NonNullable<BrowserContextOptions['storageState']> {
  const { hostname, protocol } = new URL(origin)
  const secure = protocol === 'https:'
  return {
    cookies: [
      {
        name: secure ? '__Host-dlsms' : 'dlsms',
        value: token,
        domain: hostname,
        path: '/',
        expires: Date.now() / 1000 + 3600,
        httpOnly: true,
        secure,
        sameSite: 'Strict',
      },
    ],
    origins: [{ origin, localStorage: [{ name: 'dlsms.stay', value: '1' }] }],
  }
}

let running: Promise<Browser> | undefined

/** shared returns the one browser process of a test file. */
function shared(): Promise<Browser> {
  running ??= launch([])
  return running
}

after(async () => {
  await (await running)?.close()
})

/** trust returns the argument of Chromium that lets it trust the self-signed certificate of a server. */
async function trust(origin: string): Promise<string> {
  const { hostname, port } = new URL(origin)
  const socket = connect({ host: hostname, port: Number(port), rejectUnauthorized: false })
  await once(socket, 'secureConnect')
  const key = socket.getPeerX509Certificate()?.publicKey.export({ type: 'spki', format: 'der' })
  socket.destroy()
  if (key === undefined) throw new Error(`${origin} has no certificate`)
  return `--ignore-certificate-errors-spki-list=${createHash('sha256').update(key).digest('base64')}`
}

const programs = [
  '/usr/bin/chromium',
  '/usr/bin/chromium-browser',
  '/usr/bin/google-chrome',
  '/Applications/Chromium.app/Contents/MacOS/Chromium',
  '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
]

async function launch(more: readonly string[]): Promise<Browser> {
  const executablePath = process.env['CHROMIUM'] ?? programs.find(existsSync)
  if (executablePath === undefined)
    throw new Error('Chromium is missing: install it, or set CHROMIUM to its path')
  const start = (chromiumSandbox: boolean): Promise<Browser> =>
    chromium.launch({ executablePath, chromiumSandbox, args: ['--force-color-profile=srgb', ...more] })
  if (process.getuid?.() === 0) return start(false) // Chromium has no sandbox for root
  try {
    return await start(true)
  } catch (e) {
    if (!String(e).includes('sandbox')) throw e
    return start(false) // in a container without user namespaces
  }
}
