/** The sections about seats and screens are one chunk: see work.ts. */
export { Section as Import } from './import.tsx'
export { Section as Labels } from './labels.tsx'
export { Section as Plan } from './map.tsx'
export { Section as Screens } from './screens.tsx'
export { Section as Seats } from './seats.tsx'
