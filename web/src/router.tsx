import { signal } from '@preact/signals'
import type { ComponentChildren, JSX } from 'preact'

/** Location is the address of the page: a path and its query. */
export interface Location {
  path: string
  query: URLSearchParams
}

export const here = signal<Location>(read())

function read(): Location {
  return { path: location.pathname, query: new URLSearchParams(location.search) }
}

let mayLeave = (): boolean => true

/** guard lets f decide whether the user may leave the page, such as one with unsaved changes. Undefined: they may. */
export function guard(f: (() => boolean) | undefined): void {
  mayLeave = f ?? (() => true)
}

addEventListener('popstate', () => {
  // The browser shows the address before: only a new entry of the history returns to the page.
  if (mayLeave()) here.value = read()
  else history.pushState(null, '', address(here.value))
})

function address({ path, query }: Location): string {
  const text = query.toString()
  return path + (text === '' ? '' : '?' + text)
}

/** go opens a page of this client. With replace, the page before is not in the history. */
export function go(to: string, replace = false): void {
  if (to !== location.pathname + location.search) {
    if (!mayLeave()) {
      here.value = { ...here.value } // a control that asked for the other page shows this one again
      return
    }
    if (replace) history.replaceState(null, '', to)
    else history.pushState(null, '', to)
    const moved = here.value.path !== location.pathname
    here.value = read()
    if (moved) scrollTo(0, 0)
  }
}

/** setQuery changes values of the query; an empty value removes it. */
export function setQuery(values: Record<string, string>, replace = false): void {
  const query = new URLSearchParams(here.value.query)
  for (const [name, value] of Object.entries(values)) {
    if (value === '') query.delete(name)
    else query.set(name, value)
  }
  go(address({ path: here.value.path, query }), replace)
}

/** signInPath returns the address of the sign-in that comes back to this page, with all that is chosen on it. */
export function signInPath(): string {
  const { path, query } = here.value
  if (path === '/login' || path === '/register') return address({ path: '/login', query })
  return `/login?next=${encodeURIComponent(address(here.value))}`
}

interface LinkProps {
  href: string
  class?: string
  label?: string
  /** section marks the link also on the pages below its address. */
  section?: boolean
  children: ComponentChildren
}

/** Link is a link to a page of this client. */
export function Link({ href, label, section = false, children, ...rest }: LinkProps): JSX.Element {
  const path = here.value.path
  const inside = section && path.startsWith(href + '/')
  return (
    <a
      {...rest}
      href={href}
      aria-label={label}
      aria-current={path === href.split('?')[0] ? 'page' : inside ? 'true' : undefined}
      onClick={(e) => {
        if (e.ctrlKey || e.metaKey || e.shiftKey || e.button !== 0) return
        e.preventDefault()
        go(href)
      }}
    >
      {children}
    </a>
  )
}
