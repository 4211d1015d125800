import type { JSX } from 'preact'
import type { Schema } from '../api/client.ts'
import { t } from '../i18n/text.ts'

const icons: Record<Schema<'Amenity'>, string> = {
  AMENITY_UNSPECIFIED: 'M12 4v16M4 12h16',
  AMENITY_POWER_OUTLET: 'M9 3v5M15 3v5M6 8h12v4a6 6 0 0 1-12 0zM12 18v3',
  AMENITY_MONITOR: 'M3 5h18v11H3zM12 16v4M8 20h8',
  AMENITY_WHEELCHAIR_ACCESSIBLE: 'M10 5.5v8h6l2 6M10 9.5h5M8 11a5.5 5.5 0 1 0 7 7.5M10 3v.5',
  AMENITY_STANDING_DESK: 'M3 8h18M6 8v12M18 8v12M12 18v-6M10 14l2-2 2 2',
  AMENITY_WINDOW: 'M5 3h14v18H5zM12 3v18M5 12h14',
}

/** AmenityIcon is the picture of an amenity; its name stands beside it. */
export function AmenityIcon({ amenity }: { amenity: Schema<'Amenity'> }): JSX.Element {
  return <svg class="icon" viewBox="0 0 24 24" aria-hidden="true"><path d={icons[amenity]} /></svg>
}

/** Amenities are the amenities of a seat, each as picture and word. */
export function Amenities({ of }: { of: readonly Schema<'Amenity'>[] }): JSX.Element | null {
  if (of.length === 0) return null
  return <span class="amenities">{of.map((a) => <span key={a}><AmenityIcon amenity={a} />{t().common.amenity[a]} </span>)}</span>
}
