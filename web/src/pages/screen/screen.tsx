import type { JSX } from 'preact'
import { ts } from '../../i18n/text.ts'

export function View(): JSX.Element {
  return <h1>{ts().screen.title}</h1>
}
