import { common } from './common.ts'
import { errors } from './errors.ts'
import { now } from './now.ts'

export const text = { common, errors, now }
