import { useId } from 'preact/hooks'
import type { JSX } from 'preact'
import { language, languages, ts, type Language } from '../i18n/text.ts'

/** Note is a text for students, by language, such as { en: 'The lift is out of order.' }. */
export type Note = Readonly<Record<string, string>>

/** longest is the limit of the API for one text. */
const longest = 500 // characters

/** filled returns a note without its empty texts, as a call needs it. */
export function filled(note: Note): Record<string, string> {
  return Object.fromEntries(
    Object.entries(note)
      .map(([l, text]) => [l, text.trim()] as const)
      .filter(([, text]) => text !== ''),
  )
}

interface NoteFieldsProps {
  legend: string
  hint?: string | undefined
  value: Note
  onChange: (note: Note) => void
}

/** NoteFields edits a text for students in each language, the language of the page first. */
export function NoteFields({ legend, hint, value, onChange }: NoteFieldsProps): JSX.Element {
  const id = useId()
  // A note can have a language that the page does not know: it is shown, so that a change does not lose it.
  const all = [...new Set([language.value, ...Object.keys(languages), ...Object.keys(value)])]
  return (
    <fieldset class="note-fields" aria-describedby={`${id}-hint`}>
      <legend>{legend}</legend>
      <small id={`${id}-hint`}>{hint ?? ts().admin.note.hint}</small>
      {all.map((l) => (
        <div class="note-field" key={l}>
          <label for={`${id}-${l}`}>{languages[l as Language] ?? l}</label>
          <textarea
            id={`${id}-${l}`}
            lang={l}
            rows={2}
            maxLength={longest}
            value={value[l] ?? ''}
            onInput={(e) => onChange({ ...value, [l]: e.currentTarget.value })}
          />
        </div>
      ))}
    </fieldset>
  )
}
