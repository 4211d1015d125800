import type { JSX } from 'preact'
import { t } from '../../i18n/text.ts'

export function View(): JSX.Element {
  return <h1>{t().account.title}</h1>
}
