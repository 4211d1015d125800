// Builds the web client into dist: `node build.mjs [--out DIR]`. The result depends only on the files
// here and on package-lock.json, so that CI can build it again and compare.
import { build } from 'esbuild'
import { createHash } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { basename, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { brotliCompressSync, constants, gzipSync } from 'node:zlib'

const root = fileURLToPath(new URL('.', import.meta.url))
const flag = process.argv.indexOf('--out')
const out = resolve((flag < 0 ? undefined : process.argv[flag + 1]) ?? join(root, 'dist'))

// One style sheet for all pages, and one for the pages of staff and the screen. A module
// that is loaded on demand cannot bring its style sheet with it: src/ui/style.ts loads it.
const styles = await build({
  absWorkingDir: root,
  entryPoints: { main: 'src/style/main.css', staff: 'src/style/staff.css' },
  bundle: true,
  minify: true,
  target: 'es2022',
  entryNames: 'assets/[name]-[hash]',
  metafile: true,
  write: false,
  outdir: out,
})
const mainStyle = path(styles.metafile, 'src/style/main.css')

const options = /** @type {const} */ ({
  absWorkingDir: root,
  entryPoints: { main: 'src/main.tsx' },
  bundle: true,
  splitting: true,
  format: 'esm',
  minify: true,
  target: 'es2022',
  jsx: 'automatic',
  jsxImportSource: 'preact',
  entryNames: 'assets/[name]-[hash]',
  chunkNames: 'assets/[name]-[hash]',
  define: { STAFF_STYLE: JSON.stringify('/' + path(styles.metafile, 'src/style/staff.css')) },
  metafile: true,
  write: false,
  outdir: out,
})

// esbuild makes a chunk for each set of pages that share modules: 14 for the first load. Each costs a
// request. The pages are loaded after main.js, so all of them may use one chunk with all modules of
// the first load: the second build lets each page import these modules.
const firstLoad = ['src/main.tsx', 'src/pages/now/now.tsx', 'src/pages/now/sheet.tsx']
const draft = await build(options)
const scripts = await build({ ...options, plugins: [oneChunk(draft.metafile)] })
const mainScript = path(scripts.metafile, 'src/main.tsx')
// The first page of most visits: without this link, the browser learns of it only when main.js runs.
const firstPage = path(scripts.metafile, 'src/pages/now/now.tsx')

/** @type {Map<string, Uint8Array>} by name in dist */
const files = new Map()
for (const file of [...styles.outputFiles, ...scripts.outputFiles]) {
  files.set(file.path.slice(out.length + 1), file.contents)
}
for (const name of readdirSync(join(root, 'static')))
  files.set(name, readFileSync(join(root, 'static', name)))

const page = text('index.html')
  .replace('{style}', '/' + mainStyle)
  .replace('{script}', '/' + mainScript)
  .replace(
    '{preload}',
    [...new Set([...staticImports(mainScript), firstPage, ...staticImports(firstPage)])]
      .map((name) => `<link rel="modulepreload" href="/${name}">`)
      .join(''),
  )
files.set('index.html', Buffer.from(page))

// The service worker keeps the files that a visit needs without a network. Its version changes with
// each of them.
const pages = ['src/pages/now/now.tsx', 'src/pages/now/sheet.tsx', 'src/map/map.tsx', 'src/pages/me/me.tsx']
const scriptsOfShell = ['src/main.tsx', ...pages].map((page) => path(scripts.metafile, page))
const textsOfShell = ['de', 'en', 'zh'].flatMap((l) =>
  ['index', 'own'].map((part) => `src/i18n/${l}/${part}.ts`),
)
const shell = ['/'].concat(
  [
    ...new Set([
      mainStyle,
      ...scriptsOfShell.flatMap((script) => [script, ...staticImports(script)]),
      ...textsOfShell.map((text) => path(scripts.metafile, text)),
    ]),
  ].map((name) => '/' + name),
)
const version = createHash('sha256')
  .update([...files.keys()].sort().join())
  .update(page)
  .digest('hex')
  .slice(0, 12)
const worker = await build({
  absWorkingDir: root,
  entryPoints: ['src/sw.ts'],
  bundle: true,
  minify: true,
  target: 'es2022',
  define: { SHELL: JSON.stringify(shell), VERSION: JSON.stringify(version) },
  write: false,
})
files.set('sw.js', /** @type {import('esbuild').OutputFile} */ (worker.outputFiles[0]).contents)

rmSync(out, { recursive: true, force: true })
mkdirSync(join(out, 'assets'), { recursive: true })
for (const [name, content] of files) {
  writeFileSync(join(out, name), content)
  if (/\.(png)$/.test(name)) continue
  writeFileSync(
    join(out, name + '.br'),
    brotliCompressSync(content, {
      params: {
        [constants.BROTLI_PARAM_QUALITY]: constants.BROTLI_MAX_QUALITY,
        [constants.BROTLI_PARAM_SIZE_HINT]: content.length,
      },
    }),
  )
  writeFileSync(join(out, name + '.gz'), gzipSync(content, { level: 9 }))
}
writeFileSync(join(root, 'meta.json'), JSON.stringify(scripts.metafile))

/** @param {string} name */
function text(name) {
  return Buffer.from(/** @type {Uint8Array} */ (files.get(name))).toString()
}

/**
 * oneChunk returns a plugin with which all pages import the modules of the first load.
 * @param {import('esbuild').Metafile} meta of a build without the plugin
 * @returns {import('esbuild').Plugin}
 */
function oneChunk(meta) {
  const loaded = firstLoad.map((entry) => outputOf(meta, entry))
  for (const output of loaded) {
    for (const i of meta.outputs[output]?.imports ?? []) {
      if (i.kind === 'import-statement' && !loaded.includes(i.path)) loaded.push(i.path)
    }
  }
  const pages = Object.values(meta.outputs).flatMap((o) =>
    /^src\/(pages|map)\//.test(o.entryPoint ?? '') ? [join(root, o.entryPoint ?? '')] : [],
  )
  const shared = loaded
    .flatMap((output) => Object.keys(meta.outputs[output]?.inputs ?? {}))
    .filter((input) => input.startsWith('src/') && !firstLoad.includes(input))
    .sort()
  const imports = shared.map((input) => `import ${JSON.stringify(join(root, input))}\n`).join('')
  return {
    name: 'one-chunk',
    setup(b) {
      b.onLoad({ filter: /\.tsx?$/ }, ({ path }) =>
        pages.includes(path)
          ? { contents: readFileSync(path, 'utf8') + imports, loader: path.endsWith('x') ? 'tsx' : 'ts' }
          : undefined,
      )
    },
  }
}

/**
 * outputOf returns the output of an entry point, or of a module that is loaded on demand.
 * @param {import('esbuild').Metafile} meta
 * @param {string} entry
 */
function outputOf(meta, entry) {
  for (const [name, output] of Object.entries(meta.outputs)) if (output.entryPoint === entry) return name
  throw new Error(`${entry} has no output`)
}

/**
 * path returns the name in dist of the output of an entry point, or of a module that is loaded on demand.
 * @param {import('esbuild').Metafile} meta
 * @param {string} entry
 */
function path(meta, entry) {
  return 'assets/' + basename(outputOf(meta, entry))
}

/**
 * staticImports returns the chunks that a script loads before it runs.
 * @param {string} script
 */
function staticImports(script) {
  const found = new Set()
  /** @param {string} name */
  const visit = (name) => {
    for (const [output, { imports }] of Object.entries(scripts.metafile.outputs)) {
      if (basename(output) !== basename(name)) continue
      for (const i of imports) {
        const chunk = 'assets/' + basename(i.path)
        if (i.kind !== 'import-statement' || found.has(chunk)) continue
        found.add(chunk)
        visit(chunk)
      }
    }
  }
  visit(script)
  return [...found].sort()
}
