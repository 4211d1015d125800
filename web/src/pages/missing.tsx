import type { JSX } from 'preact'
import { t } from '../i18n/text.ts'
import { Link } from '../router.tsx'

export function View(): JSX.Element {
  return (
    <>
      <h1>{t().common.notFoundTitle}</h1>
      <p>{t().common.notFoundText}</p>
      <p>
        <Link href="/">{t().common.toStart}</Link>
      </p>
    </>
  )
}
