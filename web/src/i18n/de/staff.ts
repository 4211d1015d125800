import { desk } from './desk.ts'
import { screen } from './screen.ts'

export const text = { desk, screen }
