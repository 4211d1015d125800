import { here } from '../../router.tsx'

/**
 * nextPath returns the page that the query `next` names, for after the sign-in. An address of another
 * origin is refused, so that a link to the sign-in cannot lead a user elsewhere.
 */
export function nextPath(otherwise = '/'): string {
  const wanted = here.value.query.get('next') ?? ''
  if (!wanted.startsWith('/')) return otherwise
  let url: URL
  try {
    url = new URL(wanted, location.origin)
  } catch {
    return otherwise
  }
  // "/.//host" is a path of this origin, but the address "//host" that follows from it is not.
  if (url.origin !== location.origin || url.pathname.startsWith('//')) return otherwise
  if (/^\/(v1|docs|healthz|login|register)(\/|$)/.test(url.pathname)) return otherwise
  return url.pathname + url.search
}

/** withNext returns a path of the sign-in that keeps where the user goes on. */
export function withNext(path: string): string {
  const next = here.value.query.get('next')
  return next === null ? path : `${path}?next=${encodeURIComponent(next)}`
}
