import { useEffect, useErrorBoundary, useRef } from 'preact/hooks'
import { useSignal } from '@preact/signals'
import type { ComponentType, JSX } from 'preact'
import { t } from '../i18n/text.ts'
import { here, Link, signInPath } from '../router.tsx'
import { account, ended, isLibrarian, isStaff, resuming } from '../state/session.ts'
import { Announcer } from '../ui/announce.tsx'
import { Connection } from '../ui/connection.tsx'
import { News } from '../ui/news.tsx'
import { Notices } from '../ui/notice.tsx'
import { routeOf, type Page } from './routes.ts'

/** Shell is the frame of all pages: header, navigation, the page, and the live regions. */
export function Shell(): JSX.Element {
  const path = here.value.path
  const route = routeOf(path)
  if (route.bare === true) {
    return (
      <>
        <PageView key={route.name} load={route.load} path={path} />
        <Announcer />
      </>
    )
  }
  return (
    <>
      <a class="skip" href="#main">
        {t().common.skip}
      </a>
      <Header />
      <Connection />
      <News />
      {ended.value !== '' && (
        <p class="banner" role="alert">
          {t().common.ended} <Link href={signInPath()}>{t().common.signIn}</Link>
        </p>
      )}
      <main id="main" tabIndex={-1} class={route.name}>
        <PageView key={route.name} load={route.load} path={path} />
      </main>
      <Notices />
      <Announcer />
    </>
  )
}

function Header(): JSX.Element {
  const nav = t().common.nav
  return (
    <header class="top">
      <Link href="/" class="brand">
        <svg viewBox="0 0 24 24" aria-hidden="true">
          <path
            d="M8 3h8a2 2 0 0 1 2 2v7H6V5a2 2 0 0 1 2-2zM5 14h14v2H5zM6 17h2v4H6zM16 17h2v4h-2z"
            fill="currentColor"
          />
        </svg>
        <span>{t().common.appName}</span>
      </Link>
      <nav aria-label={t().common.appName}>
        <Link href="/">{nav.now}</Link>
        <Link href="/me">{nav.me}</Link>
        <Link href="/scan">{nav.scan}</Link>
        {isStaff.value && (
          <Link href="/desk" section>
            {nav.desk}
          </Link>
        )}
        {isLibrarian.value && (
          <Link href="/admin" section>
            {nav.admin}
          </Link>
        )}
        {account.value || resuming.value ? (
          <Link href="/settings" class="account">
            {account.value?.user.name ?? nav.settings}
          </Link>
        ) : (
          <Link href={signInPath()} class="account">
            {t().common.signIn}
          </Link>
        )}
      </nav>
    </header>
  )
}

/** PageView loads the code of a page and shows it. After a change of page it moves the focus to the heading. */
function PageView({ load, path }: { load: () => Promise<Page>; path: string }): JSX.Element {
  const page = useSignal<Page | undefined>(undefined)
  const failed = useSignal(false)
  const [error, reset] = useErrorBoundary((e) => console.error(e))
  // Another address may be one that the page can show.
  const address = here.value
  useEffect(() => {
    if (error !== undefined) reset()
  }, [address])
  useEffect(() => {
    let current = true
    load().then(
      (p) => {
        if (current) page.value = p
      },
      () => {
        failed.value = true
      },
    )
    return () => {
      current = false
    }
  }, [load])
  const first = useRef(firstPage)
  useEffect(() => {
    if (page.value === undefined) return
    document.title = `${document.querySelector('h1')?.textContent ?? ''} · ${t().common.appName}`
    if (!first.current) {
      const heading = document.querySelector('main h1')
      if (heading instanceof HTMLElement) {
        heading.tabIndex = -1
        heading.focus({ preventScroll: true })
      }
    }
    firstPage = false
  }, [page.value])
  if (error !== undefined || failed.value) return <Failed />
  const View: ComponentType<{ path: string }> | undefined = page.value?.View
  return View === undefined ? (
    <p class="loading" role="status">
      {t().common.loading}
    </p>
  ) : (
    <View path={path} />
  )
}

let firstPage = true

function Failed(): JSX.Element {
  return (
    <>
      <h1>{t().common.failedTitle}</h1>
      <p>{t().common.failedText}</p>
      <button class="button main" type="button" onClick={() => location.reload()}>
        {t().common.reload}
      </button>
    </>
  )
}
