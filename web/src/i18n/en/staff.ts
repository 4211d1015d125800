import { admin } from './admin.ts'
import { desk } from './desk.ts'
import { hours } from './hours.ts'
import { people } from './people.ts'
import { policies } from './policies.ts'
import { reports } from './reports.ts'
import { screen } from './screen.ts'
import { seats } from './seats.ts'

export const staff = { admin, desk, hours, people, policies, reports, screen, seats }
