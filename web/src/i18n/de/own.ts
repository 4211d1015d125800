import { account } from './account.ts'
import { me } from './me.ts'
import { scan } from './scan.ts'

export const text = { account, me, scan }
