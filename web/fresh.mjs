// Compares a new build of the web client with web/dist, and checks the sizes: `node fresh.mjs DIR`.
// Compressed files are compared by their content, because versions of zlib compress differently.
import { readdirSync, readFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { brotliCompressSync, brotliDecompressSync, gunzipSync } from 'node:zlib'

const root = fileURLToPath(new URL('.', import.meta.url))
const dist = join(root, 'dist')
const built = process.argv[2]
if (built === undefined) throw new Error('usage: node fresh.mjs DIR')

/** Limits in bytes of brotli: see docs/web.md. */
const limits = {
  'first load of Now': 45_000,
  'the pages of the library, on top': 60_000,
  'decoder of QR codes': 16_000,
}

/**
 * @param {string} dir
 * @returns {string[]}
 */
function filesOf(dir) {
  return readdirSync(dir, { withFileTypes: true }).flatMap((e) =>
    e.isDirectory() ? filesOf(join(dir, e.name)) : [join(dir, e.name)],
  )
}

/** @param {string} dir */
function namesOf(dir) {
  return filesOf(dir)
    .map((f) => relative(dir, f))
    .sort()
}

/**
 * @param {string} dir
 * @param {string} name
 */
function contentOf(dir, name) {
  const content = readFileSync(join(dir, name))
  if (name.endsWith('.br')) return brotliDecompressSync(content)
  if (name.endsWith('.gz')) return gunzipSync(content)
  return content
}

const [committed, fresh] = [namesOf(dist), namesOf(built)]
const stale = [...new Set([...committed, ...fresh])].filter(
  (n) => !committed.includes(n) || !fresh.includes(n) || !contentOf(dist, n).equals(contentOf(built, n)),
)
if (stale.length > 0) {
  console.error(`web/dist is out of date: run \`make web\`\n  ${stale.slice(0, 10).join('\n  ')}`)
  process.exitCode = 1
}

/** @type {import('esbuild').Metafile} */
const meta = JSON.parse(readFileSync(join(root, 'meta.json'), 'utf8'))

/**
 * outputOf returns the name of the output of a source file.
 * @param {string} entry
 */
function outputOf(entry) {
  const found = Object.entries(meta.outputs).find(([, o]) => o.entryPoint === entry)
  if (found === undefined) throw new Error(`${entry} has no output`)
  return found[0]
}

/**
 * withImports returns outputs and all that they load before they run.
 * @param {string[]} names
 */
function withImports(names) {
  const all = new Set(names)
  for (const name of all) {
    for (const i of meta.outputs[name]?.imports ?? []) if (i.kind === 'import-statement') all.add(i.path)
  }
  return all
}

/** @param {Iterable<string>} outputs */
function namesInDist(outputs) {
  return [...outputs].map((o) => 'assets/' + o.replace(/^.*\//, ''))
}

/** @param {string[]} names */
function sizeOf(names) {
  return names.reduce((sum, n) => sum + brotliCompressSync(readFileSync(join(built, n))).length, 0)
}

/** @param {string} name of a style sheet */
function style(name) {
  const found = fresh.find((n) => n.startsWith(`assets/${name}-`) && n.endsWith('.css'))
  if (found === undefined) throw new Error(`there is no style sheet ${name}`)
  return found
}

const entries = Object.values(meta.outputs).map((o) => o.entryPoint ?? '')
const languages = ['en', 'de', 'zh']
// Now with its sheet: all that a user needs to book a seat from the list. The map is loaded when it is shown.
const firstCode = withImports(
  ['src/main.tsx', 'src/pages/now/now.tsx', 'src/pages/now/sheet.tsx'].map(outputOf),
)
const first = Math.max(
  ...languages.map((l) =>
    sizeOf([
      'index.html',
      style('main'),
      ...namesInDist(withImports([...firstCode, outputOf(`src/i18n/${l}/index.ts`)])),
    ]),
  ),
)
const adminCode = withImports(entries.filter((e) => e.startsWith('src/pages/admin/')).map(outputOf))
const admin = Math.max(
  ...languages.map((l) => {
    const all = withImports([...adminCode, outputOf(`src/i18n/${l}/library.ts`)])
    return sizeOf([style('staff'), ...namesInDist([...all].filter((o) => !firstCode.has(o)))])
  }),
)
const decoder = Object.keys(meta.outputs).filter((name) =>
  Object.keys(meta.outputs[name]?.inputs ?? {}).some((i) => i.startsWith('node_modules/qr/')),
)
const qr = sizeOf(namesInDist(decoder))

for (const [i, [what, limit]] of Object.entries(limits).entries()) {
  const size = [first, admin, qr][i] ?? 0
  console.log(`web: ${what}: ${(size / 1000).toFixed(1)} KB of ${limit / 1000} KB`)
  if (size === 0 || size > limit) {
    console.error(`web: ${what} is ${size === 0 ? 'missing' : 'too large'}`)
    process.exitCode = 1
  }
}
