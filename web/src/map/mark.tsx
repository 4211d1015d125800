import type { JSX } from 'preact'
import type { PlanArea } from './layout.ts'
import type { Look } from '../pages/now/look.ts'

/** The outline of a seat by its state, in a square from -1 to 1: no two states differ by colour alone. */
const outlines: Record<Look, string> = {
  free: 'M-.7-1H.7Q1-1 1-.7V.7Q1 1 .7 1H-.7Q-1 1-1 .7V-.7Q-1-1-.7-1Z',
  mine: 'M0-1.1C.6-1.1 1.1-.6 1.1 0S.6 1.1 0 1.1-1.1 .6-1.1 0-.6-1.1 0-1.1Z',
  taken: 'M-.5-1H.5L1-.5V.5L.5 1H-.5L-1 .5V-.5Z',
  closed: 'M0-1.1L1.1 0 0 1.1-1.1 0Z',
  out: 'M-1-1H1V1H-1Z',
}

/** signs are the letters that mark a state. A free seat has none: it is what a user looks for. */
export const signs: Record<Look, string> = { free: '', mine: '★', taken: '×', closed: '–', out: '!' }

/** outline returns the path of a seat of a size. */
export function outline(look: Look, size: number): string {
  const half = size / 2
  return outlines[look].replace(/([A-Z])|(-?\d*\.?\d+)/g, (_, letter: string | undefined, number: string) =>
    letter === undefined ? ` ${round(Number(number) * half)}` : letter,
  )
}

function round(n: number): number {
  return Math.round(n * 10) / 10
}

/** Sign is the mark of a state beside its word. */
export function Sign({ look }: { look: Look }): JSX.Element {
  return (
    <svg class={`sign ${look}`} viewBox="-12 -12 24 24" aria-hidden="true">
      <path d={outline(look, 20)} />
      {signs[look] !== '' && <text y="6">{signs[look]}</text>}
    </svg>
  )
}

interface AreaBoxProps {
  area: PlanArea
  /** Place of the name in its box, in centimetres from the left and from the top. */
  inset: readonly [number, number]
}

/** AreaBox draws an area: its box and its name. */
export function AreaBox({ area: a, inset: [dx, dy] }: AreaBoxProps): JSX.Element {
  return (
    <g>
      <rect class="area" x={a.left} y={a.top} width={a.right - a.left} height={a.bottom - a.top} rx="20" />
      <text class="area-name" x={a.left + dx} y={a.top + dy}>
        {a.name}
      </text>
    </g>
  )
}
