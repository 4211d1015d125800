import type { ComponentType } from 'preact'
import { loadText } from '../i18n/text.ts'
import { loadStaffStyle } from '../ui/style.ts'

/** Page is a page of the client: a component that gets the path. */
export interface Page {
  View: ComponentType<{ path: string }>
}

export interface Route {
  name: string
  load: () => Promise<Page>
  /** bare: the page has no header, such as the screen of a reading room. */
  bare?: boolean
}

interface Pattern extends Route {
  pattern: RegExp
}

const ownPage = (load: () => Promise<Page>) => async (): Promise<Page> =>
  (await Promise.all([load(), loadText('own')]))[0]

const deskPage = (load: () => Promise<Page>) => async (): Promise<Page> =>
  (await Promise.all([load(), loadText('desk'), loadStaffStyle()]))[0]

const libraryPage = (load: () => Promise<Page>) => async (): Promise<Page> =>
  (await Promise.all([load(), loadText('library'), loadStaffStyle()]))[0]

/** The server answers these paths with the page; all others with 404. QR codes have upper-case paths. */
const routes: Pattern[] = [
  { name: 'now', pattern: /^\/$/, load: () => import('./now/now.tsx') },
  { name: 'me', pattern: /^\/me$/, load: ownPage(() => import('./me/me.tsx')) },
  { name: 'scan', pattern: /^\/(scan|c\/[^/]+|s\/[^/]+)$/i, load: ownPage(() => import('./scan/scan.tsx')) },
  { name: 'login', pattern: /^\/login$/, load: ownPage(() => import('./account/login.tsx')) },
  { name: 'register', pattern: /^\/register$/, load: ownPage(() => import('./account/register.tsx')) },
  { name: 'settings', pattern: /^\/settings$/, load: ownPage(() => import('./account/settings.tsx')) },
  { name: 'screen', pattern: /^\/screen$/, load: deskPage(() => import('./screen/screen.tsx')), bare: true },
  { name: 'desk', pattern: /^\/desk(\/.*)?$/, load: deskPage(() => import('./desk/desk.tsx')) },
  { name: 'admin', pattern: /^\/admin(\/.*)?$/, load: libraryPage(() => import('./admin/admin.tsx')) },
]

const missing: Route = { name: 'missing', load: () => import('./missing.tsx') }

/** routeOf returns the route of a path. */
export function routeOf(path: string): Route {
  return routes.find((r) => r.pattern.test(path)) ?? missing
}
