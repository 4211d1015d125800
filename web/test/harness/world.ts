import {
  admin,
  book,
  inMinutes,
  newBranch,
  newStaff,
  newStudent,
  ok,
  type Branch,
  type Person,
} from './api.ts'
import { labelsOf, newScreen, setRules } from './codes.ts'

/** World is a branch with something to see in each of its pages, and its users. */
export interface World {
  branch: Branch
  student: Person
  other: Person
  staff: Person
  librarian: Person
  admin: Person
  /** Seats by their state for the student. */
  seats: { free: string; mine: string; taken: string; closed: string; out: string; waiting: string }
  /** Code of the label of the free seat. */
  label: string
  /** Code of a screen. */
  screenCode: () => string
}

/** newWorld makes a branch with 16 seats in two areas, of which some have each state. */
export async function newWorld(): Promise<World> {
  const branch = await newBranch({
    seats: 16,
    name: 'Law Library',
    areas: ['Reading Room', 'Gallery'],
    plan: true,
    seat: (i) => ({
      amenities:
        ([['AMENITY_POWER_OUTLET', 'AMENITY_WINDOW'], ['AMENITY_MONITOR'], []] as const)[i % 3]?.slice() ??
        [],
      outOfService: i === 4,
    }),
  })
  const at = (i: number): string => branch.seats[i]?.id ?? ''
  const seats = { free: at(0), mine: at(1), taken: at(2), closed: at(3), out: at(4), waiting: at(5) }
  const [student, other, staff, librarian, chief] = await Promise.all([
    newStudent('Ada Okafor'),
    newStudent('Ben Lindqvist'),
    newStaff('ROLE_STAFF', [branch.code]),
    newStaff('ROLE_LIBRARIAN', [branch.code]),
    admin(),
  ])
  const screen = await newScreen(branch)
  await setRules(branch, { checkIn: 'CHECK_IN_RULE_SCREEN' })
  await book(student, seats.mine, { minutes: 120 })
  await book(student, at(6), { start: 24 * 60, minutes: 90 })
  await book(other, seats.taken, { minutes: 90 })
  await book(other, seats.waiting, { start: 180, minutes: 90 })
  await ok(
    student.api.POST('/v1/waitlist', {
      body: { seatId: seats.waiting, startTime: inMinutes(180), endTime: inMinutes(270) },
    }),
  )
  const { api } = chief
  await ok(
    api.POST('/v1/admin/closures', {
      body: {
        branch: branch.code,
        seatIds: [seats.closed],
        endTime: inMinutes(600),
        note: { en: 'The lamp is being repaired.', de: 'Die Lampe wird repariert.', zh: '台灯正在维修。' },
      },
    }),
  )
  const params = { path: { branch: branch.code } }
  const text = {
    en: 'The café is closed today.',
    de: 'Das Café ist heute geschlossen.',
    zh: '咖啡厅今天关闭。',
  }
  await ok(api.POST('/v1/admin/branches/{branch}/announcement', { params, body: { text } }))
  const labels = await labelsOf(branch)
  const screenCode = (): string => screen.now().code
  const label = labels.get(seats.free) ?? ''
  return { branch, student, other, staff, librarian, admin: chief, seats, label, screenCode }
}
