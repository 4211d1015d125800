/// <reference lib="webworker" />
// The service worker. It keeps the files of the page on the device, so that the page opens without a
// network and shows the reservations as of last time. It never keeps an answer of the API.
export {}
declare const self: ServiceWorkerGlobalScope
/** Names of the files of a visit, and a version that changes with them: build.mjs sets both. */
declare const SHELL: string[]
declare const VERSION: string

const cacheName = `dlsms-${VERSION}`

self.addEventListener('install', (e) => {
  e.waitUntil(
    caches
      .open(cacheName)
      .then(async (cache) => {
        await cache.addAll(SHELL)
        await checkPage(await cache.match('/'))
      })
      .then(() => self.skipWaiting()),
  )
})

/**
 * checkPage fails if the page is of another release than this worker, from a replica that is not updated
 * yet. Without a network, that page would not find its files. The browser then installs the worker later.
 */
async function checkPage(page: Response | undefined): Promise<void> {
  const text = (await page?.text()) ?? ''
  for (const [, file] of text.matchAll(/"(\/assets\/[^"]+)"/g)) {
    if (!SHELL.includes(file ?? '')) throw new Error(`the page is of another release: ${file}`)
  }
}

self.addEventListener('activate', (e) => {
  e.waitUntil(
    caches
      .keys()
      .then((names) => Promise.all(names.filter((n) => n !== cacheName).map((n) => caches.delete(n))))
      .then(() => self.clients.claim()),
  )
})

self.addEventListener('fetch', (e) => {
  const url = new URL(e.request.url)
  if (e.request.method !== 'GET' || url.origin !== location.origin) return
  if (e.request.mode === 'navigate' && !/^\/(v1|docs|healthz)(\/|$)/.test(url.pathname)) {
    // The newest page, or the one of last time if the network gives none within 3 seconds.
    e.respondWith(
      withTimeout(fetch(e.request), 3000).catch(async () => (await caches.match('/')) ?? Response.error()),
    )
  } else if (url.pathname.startsWith('/assets/')) {
    e.respondWith(asset(e.request)) // the name has a hash: the content never changes
  }
})

async function asset(request: Request): Promise<Response> {
  const kept = await caches.match(request)
  if (kept !== undefined) return kept
  const answer = await fetch(request)
  if (answer.ok) await (await caches.open(cacheName)).put(request, answer.clone())
  return answer
}

function withTimeout(answer: Promise<Response>, milliseconds: number): Promise<Response> {
  return Promise.race([
    answer.then((r) => (r.status < 500 ? r : Promise.reject(new Error('the server fails')))),
    new Promise<never>((_, reject) => setTimeout(() => reject(new Error('timeout')), milliseconds)),
  ])
}
