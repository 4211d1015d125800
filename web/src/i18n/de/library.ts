import { admin } from './admin.ts'
import { hours } from './hours.ts'
import { people } from './people.ts'
import { policies } from './policies.ts'
import { reports } from './reports.ts'
import { seats } from './seats.ts'

export const text = { admin, hours, people, policies, reports, seats }
