/** The sections about the work of a branch are one chunk: they share words, so it is a quarter smaller than nine. */
export { Section as Announcement } from './announcement.tsx'
export { Section as Audit } from './audit.tsx'
export { Section as Closures } from './closures.tsx'
export { Section as Hours } from './hours.tsx'
export { Section as People } from './people.tsx'
export { Section as Policies } from './policies.tsx'
export { Section as Reports } from './reports.tsx'
export { Section as Today } from './today.tsx'
