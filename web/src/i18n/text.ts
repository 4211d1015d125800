import { signal } from '@preact/signals'
import { read } from '../state/preferences.ts'
import { writeStored } from '../state/storage.ts'
import type { text as FirstText } from './en/index.ts'
import type { text as LibraryText } from './en/library.ts'
import type { text as OwnText } from './en/own.ts'
import type { text as DeskText } from './en/staff.ts'

export type Text = typeof FirstText & typeof OwnText
export type StaffText = typeof DeskText & typeof LibraryText
export type Language = 'en' | 'de' | 'zh'

/** languages are the languages that a user can choose, by their own names. */
export const languages: Record<Language, string> = { en: 'English', de: 'Deutsch', zh: '中文' }

/** A part of the texts is a file of its own: `first` for the start page, `own` for the other pages of a
 * user, `desk` for the desk and the screen, `library` for the pages of librarians. */
export type Part = 'first' | 'own' | 'desk' | 'library'

const modules: Record<Language, Record<Part, () => Promise<{ text: Partial<Text & StaffText> }>>> = {
  en: {
    first: () => import('./en/index.ts'),
    own: () => import('./en/own.ts'),
    desk: () => import('./en/staff.ts'),
    library: () => import('./en/library.ts'),
  },
  de: {
    first: () => import('./de/index.ts'),
    own: () => import('./de/own.ts'),
    desk: () => import('./de/staff.ts'),
    library: () => import('./de/library.ts'),
  },
  zh: {
    first: () => import('./zh/index.ts'),
    own: () => import('./zh/own.ts'),
    desk: () => import('./zh/staff.ts'),
    library: () => import('./zh/library.ts'),
  },
}

/** language is the language of the page. */
export const language = signal<Language>(preferred())

/** The parts that the page has loaded, and their texts in its language. */
const loaded = new Set<Part>(['first'])
const texts = signal<Partial<Text & StaffText>>({})

/** t returns the texts of the language. A component that calls it is drawn again when the language changes. */
export function t(): Text {
  return texts.value as Text
}

/** ts returns the texts of the pages of staff. */
export function ts(): StaffText {
  return texts.value as StaffText
}

/** The query ?pseudo lengthens and marks all texts, so that tests find texts that are not translated. */
const pseudo = new URLSearchParams(location.search).has('pseudo')

async function mark<T>(value: T): Promise<T> {
  return pseudo ? (await import('./pseudo.ts')).pseudo(value) : value
}

/** setLanguage loads all parts that the page has in a language, and shows them. */
export async function setLanguage(l: Language): Promise<void> {
  const all = await Promise.all([...loaded].map((part) => modules[l][part]()))
  texts.value = await mark(Object.assign({}, ...all.map((m) => m.text)) as Partial<Text & StaffText>)
  language.value = l
  document.documentElement.lang = l === 'zh' ? 'zh-Hans' : l
}

/** loadText loads the texts of a part. The route of a page calls it before the page is shown. */
export async function loadText(part: Part): Promise<void> {
  if (loaded.has(part)) return
  const { text } = await modules[language.value][part]()
  loaded.add(part)
  texts.value = { ...texts.value, ...(await mark(text)) }
}

/** chooseLanguage sets the language and keeps the choice on this device. */
export async function chooseLanguage(l: Language): Promise<void> {
  await setLanguage(l)
  writeStored('dlsms.language', l)
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
