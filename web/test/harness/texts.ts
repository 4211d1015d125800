import { text as first } from '../../src/i18n/en/index.ts'
import { text as own } from '../../src/i18n/en/own.ts'

/** text has the English texts of the pages of a user. */
export const text = { ...first, ...own }
