// Runs the tests of the web client in a browser against the real stack: `make test-web`.
//
//   TESTS="now me"     run these files only: now.test.ts and me.test.ts
//   ONLY=offer         run only tests whose name matches this pattern
//   DLSMS_URL=http://… use a running system instead of an own one
//
// The stack has three replicas, nginx, Postgres and Redis on free ports and in a temporary directory.
// Its log is in .local/web-test/stack.log; a failed test leaves screenshots in .local/web-test/failed.
import { spawn, spawnSync } from 'node:child_process'
import {
  createWriteStream,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
} from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const here = fileURLToPath(new URL('.', import.meta.url))
const root = join(here, '../..')
const work = join(root, '.local/web-test')
const bin = join(root, '.local/bin')

/** Playwright needs this version of Node. Debian 12 has an older one; npm has the program as a package. */
const wanted = 20
const fallback = '20.20.2'

/** Test files at once. Each has a browser of its own. */
const concurrency = 2

/** How long the stack may take to start, and to stop, in milliseconds. */
const startTimeout = 120_000
const stopTimeout = 60_000

/** The end of a run: what it started must stop. */
const cleanups = /** @type {(() => Promise<void>)[]} */ ([])
let stopped = /** @type {Promise<void> | undefined} */ (undefined)

/** @returns {Promise<void>} */
function stop() {
  stopped ??= (async () => {
    for (const f of cleanups.reverse()) await f()
  })()
  return stopped
}

for (const signal of /** @type {const} */ (['SIGINT', 'SIGTERM', 'SIGHUP'])) {
  process.on(signal, () => void stop().then(() => process.exit(130)))
}

try {
  process.exitCode =
    Number(process.versions.node.split('.')[0]) < wanted ? await withNewerNode() : await main()
} catch (e) {
  console.error('test-web:', e instanceof Error ? e.message : e)
  process.exitCode = 1
} finally {
  await stop()
}

/** main runs the tests and returns the exit code. */
async function main() {
  mkdirSync(work, { recursive: true })
  const files = await bundle(wantedFiles())
  rmSync(join(work, 'failed'), { recursive: true, force: true })
  process.env['DLSMS_WORK'] = work
  process.env['NODE_OPTIONS'] = '--enable-source-maps'
  if ((process.env['DLSMS_URL'] ?? '') === '') await startStack()

  // First the files that share the stack, then those that disturb it or measure it.
  let passed = 0
  let failed = 0
  for (const [group, atOnce] of /** @type {const} */ ([
    [files.shared, concurrency],
    [files.alone, 1],
  ])) {
    if (group.length === 0) continue
    const result = await runFiles(group, atOnce)
    passed += result.passed
    failed += result.failed
  }
  if (passed + failed === 0) throw new Error('no test ran')
  console.log(`test-web: ${passed} passed, ${failed} failed`)
  if (failed > 0) console.log(`test-web: see ${work}/stack.log and ${work}/failed`)
  return failed === 0 ? 0 : 1
}

/** withNewerNode runs this script with a Node that npm installs into .local. */
async function withNewerNode() {
  const dir = join(root, '.local/node')
  const name = `node-${process.platform === 'win32' ? 'win' : process.platform}-${process.arch}`
  const program = join(dir, 'node_modules', name, 'bin/node')
  const has = spawnSync(program, ['-v']).stdout?.toString().trim()
  if (has !== `v${fallback}`) {
    console.log(
      `test-web: installing Node ${fallback} into .local, because this is Node ${process.versions.node}`,
    )
    mkdirSync(dir, { recursive: true })
    const args = ['install', '--no-save', '--no-audit', '--no-fund', '--prefix', dir, `${name}@${fallback}`]
    const npm = spawnSync('npm', args, { stdio: ['ignore', 'ignore', 'inherit'] })
    if (npm.status !== 0)
      throw new Error(`npm could not install ${name}@${fallback}: install Node ${wanted} or newer`)
  }
  const child = spawn(program, [fileURLToPath(import.meta.url)], { stdio: 'inherit' })
  const ended = new Promise((done) => child.on('exit', (code) => done(code ?? 1)))
  cleanups.push(async () => {
    child.kill('SIGTERM')
    await ended
  })
  return /** @type {number} */ (await ended)
}

/** wantedFiles returns the names of the test files. */
function wantedFiles() {
  const all = readdirSync(here)
    .filter((f) => f.endsWith('.test.ts'))
    .map((f) => f.replace('.test.ts', ''))
  const asked = (process.env['TESTS'] ?? '').split(/[\s,]+/).filter((f) => f !== '')
  const unknown = asked.filter((f) => !all.includes(f))
  if (unknown.length > 0)
    throw new Error(`there is no test file ${unknown.join(', ')}; there are ${all.join(', ')}`)
  return asked.length === 0 ? all.filter((f) => f !== 'screenshots') : asked
}

/**
 * bundle compiles the test files: Node 20 cannot read TypeScript.
 * @param {string[]} names
 */
async function bundle(names) {
  const { build } = await import('esbuild')
  const out = join(work, 'tests')
  rmSync(out, { recursive: true, force: true })
  // Packages stay outside of the bundles. Node finds them beside the directory of the bundles.
  const packages = join(work, 'node_modules')
  rmSync(packages, { force: true })
  symlinkSync(join(here, '../node_modules'), packages)
  await build({
    absWorkingDir: join(here, '..'),
    entryPoints: names.map((n) => `test/${n}.test.ts`),
    bundle: true,
    packages: 'external',
    platform: 'node',
    format: 'esm',
    target: 'node20',
    jsx: 'automatic',
    jsxImportSource: 'preact',
    sourcemap: true,
    outdir: out,
    outExtension: { '.js': '.mjs' },
    logLevel: 'warning',
  })
  /** @param {string} n */
  const alone = (n) => /^\/\/ Runs alone\b/m.test(readFileSync(join(here, `${n}.test.ts`), 'utf8'))
  /** @param {string} n */
  const path = (n) => join(out, `${n}.test.mjs`)
  return { shared: names.filter((n) => !alone(n)).map(path), alone: names.filter(alone).map(path) }
}

/** startStack starts the system and sets the addresses for the tests. */
async function startStack() {
  const tls = join(work, 'tls')
  mkdirSync(tls, { recursive: true })
  const certificate = spawnSync(join(bin, 'dlsms-tls'), ['-dir', tls, '-names', 'localhost 127.0.0.1'])
  if (certificate.status !== 0) throw new Error(`dlsms-tls failed: ${certificate.stderr}`)
  const log = join(work, 'stack.log')
  const file = createWriteStream(log)
  const stack = spawn(
    join(bin, 'dlsms-stack'),
    ['-dir', '', '-binary', join(bin, 'dlsms'), '-listen', '127.0.0.1:0', '-tls', tls],
    {
      cwd: root,
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true, // Ctrl-C reaches this process alone, which stops the stack after the browsers
      env: {
        ...process.env,
        NODE_OPTIONS: '',
        // All tests come from one address, and share the users of staff.
        AUTH_RATE_LIMIT_PER_MINUTE: '0',
        RATE_LIMIT_PER_MINUTE: '10000',
        BCRYPT_COST: '4', // tests create hundreds of users
        MAX_UPCOMING_RESERVATIONS: '10',
      },
    },
  )
  let output = ''
  const ended = /** @type {Promise<void>} */ (new Promise((done) => stack.on('exit', () => done())))
  const up = new Promise((done, failed) => {
    for (const stream of [stack.stdout, stack.stderr]) {
      stream.setEncoding('utf8')
      stream.on('data', (/** @type {string} */ text) => {
        file.write(text)
        if (output.length < 1_000_000) output += text
        if (/^Ctrl-C stops everything/m.test(output)) done(undefined)
      })
    }
    stack.on('error', failed)
    void ended.then(() => failed(new Error(`the stack did not start: ${output.trim().split('\n').at(-1)}`)))
    setTimeout(() => failed(new Error(`the stack did not start in time: see ${log}`)), startTimeout).unref()
  })
  cleanups.push(async () => {
    stack.kill('SIGTERM')
    const late = setTimeout(() => stack.kill('SIGKILL'), stopTimeout)
    await ended
    clearTimeout(late)
    await new Promise((done) => file.end(done))
  })
  await up
  const addresses = /all is up: gRPC on (\S+), HTTP on (\S+)/.exec(output)
  const secure = /HTTP on https:\/\/([^,\s]+)/.exec(output)
  if (addresses === null || secure === null) throw new Error(`the stack printed no address: see ${log}`)
  process.env['DLSMS_URL'] = `http://${addresses[2]}`
  process.env['DLSMS_HTTPS_URL'] = `https://${secure[1]}`
  process.env['DLSMS_STACK_LOG'] = log
  process.env['DLSMS_STACK_PID'] = String(stack.pid)
  console.log(`test-web: the stack serves ${process.env['DLSMS_URL']} and ${process.env['DLSMS_HTTPS_URL']}`)
}

/**
 * runFiles runs test files and prints their results.
 * @param {string[]} files
 * @param {number} atOnce
 */
async function runFiles(files, atOnce) {
  const { run } = await import('node:test')
  const { spec } = await import('node:test/reporters')
  const only = process.env['ONLY'] ?? ''
  let passed = 0
  let failed = 0
  const cancel = new AbortController()
  const stream = run({
    files,
    concurrency: atOnce,
    signal: cancel.signal,
    ...(only === '' ? {} : { testNamePatterns: [new RegExp(only, 'i')] }),
  })
  cleanups.push(async () => cancel.abort())
  stream.on('test:fail', (/** @type {any} */ e) => {
    if (e.details?.type !== 'suite') failed++
  })
  stream.on('test:pass', (/** @type {any} */ e) => {
    // A file without a test counts as a passed test with the name of the file.
    if (e.details?.type !== 'suite' && e.skip === undefined && !existsSync(e.name)) passed++
  })
  await new Promise((done, broken) => {
    const report = stream.compose(new spec())
    report.on('end', done)
    report.on('error', broken)
    report.pipe(process.stdout, { end: false })
  })
  return { passed, failed }
}
