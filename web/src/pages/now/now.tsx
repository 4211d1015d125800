import type { JSX } from 'preact'
import { t } from '../../i18n/text.ts'

export function View(): JSX.Element {
  return <h1>{t().now.title}</h1>
}
