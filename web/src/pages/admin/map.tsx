import type { JSX } from 'preact'

export function Section(): JSX.Element {
  return <div />
}
