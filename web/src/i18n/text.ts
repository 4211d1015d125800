import { signal } from '@preact/signals'
import { read } from '../state/preferences.ts'
import type { text as EnglishText } from './en/index.ts'
import type { staff as EnglishStaff } from './en/staff.ts'

export type Text = typeof EnglishText
export type StaffText = typeof EnglishStaff
export type Language = 'en' | 'de' | 'zh'

/** languages are the languages that a user can choose, by their own names. */
export const languages: Record<Language, string> = { en: 'English', de: 'Deutsch', zh: '中文' }

interface Modules {
  student: () => Promise<{ text: Text }>
  staff: () => Promise<{ staff: StaffText }>
}

const modules: Record<Language, Modules> = {
  en: { student: () => import('./en/index.ts'), staff: () => import('./en/staff.ts') },
  de: { student: () => import('./de/index.ts'), staff: () => import('./de/staff.ts') },
  zh: { student: () => import('./zh/index.ts'), staff: () => import('./zh/staff.ts') },
}

/** language is the language of the page. */
export const language = signal<Language>(preferred())

const student = signal<Text | undefined>(undefined)
const forStaff = signal<StaffText | undefined>(undefined)

/** t returns the texts of the language. A component that calls it is drawn again when the language changes. */
export function t(): Text {
  if (student.value === undefined) throw new Error('no language is loaded')
  return student.value
}

/** ts returns the texts of the pages of staff, after loadStaffText. */
export function ts(): StaffText {
  if (forStaff.value === undefined) throw new Error('the texts of staff are not loaded')
  return forStaff.value
}

/** The query ?pseudo lengthens and marks all texts, so that tests find texts that are not translated. */
const pseudo = new URLSearchParams(location.search).has('pseudo')

async function mark<T>(value: T): Promise<T> {
  return pseudo ? (await import('./pseudo.ts')).pseudo(value) : value
}

/** setLanguage loads a language and shows it. */
export async function setLanguage(l: Language): Promise<void> {
  const [common, staff] = await Promise.all([
    modules[l].student(),
    forStaff.value === undefined ? undefined : modules[l].staff(),
  ])
  student.value = await mark(common.text)
  if (staff !== undefined) forStaff.value = await mark(staff.staff)
  language.value = l
  document.documentElement.lang = l === 'zh' ? 'zh-Hans' : l
}

/** loadStaffText loads the texts of the pages of staff. */
export async function loadStaffText(): Promise<void> {
  if (forStaff.value === undefined) forStaff.value = await mark((await modules[language.value].staff()).staff)
}

/** chooseLanguage sets the language and keeps the choice on this device. */
export async function chooseLanguage(l: Language): Promise<void> {
  await setLanguage(l)
  localStorage.setItem('dlsms.language', l)
}

function preferred(): Language {
  const all = Object.keys(languages) as Language[]
  const chosen = read('dlsms.language', all)
  if (chosen !== undefined) return chosen
  for (const wanted of navigator.languages) {
    const found = all.find((l) => wanted.toLowerCase().startsWith(l))
    if (found !== undefined) return found
  }
  return 'en'
}

/** byLanguage returns the text of a map by language, such as an announcement: in the page's language, else any. */
export function byLanguage(texts: Readonly<Record<string, string>> | undefined): string {
  if (texts === undefined) return ''
  return texts[language.value] ?? texts['en'] ?? Object.values(texts)[0] ?? ''
}
