import { account } from './account.ts'
import { common } from './common.ts'
import { errors } from './errors.ts'
import { me } from './me.ts'
import { now } from './now.ts'
import { scan } from './scan.ts'

export const text = { account, common, errors, me, now, scan }
