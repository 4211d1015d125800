import { useSignal } from '@preact/signals'
import { useEffect, useRef } from 'preact/hooks'
import type { JSX } from 'preact'
import type { Schema } from '../../api/client.ts'
import { ts } from '../../i18n/text.ts'
import { dayAndClock } from '../../i18n/time.ts'
import { go, here, Link } from '../../router.tsx'
import { zoneOf } from '../../state/branches.ts'
import { isLibrarian } from '../../state/session.ts'
import { Button, useAction } from '../../ui/action.tsx'
import { announce } from '../../ui/announce.tsx'
import { Field } from '../../ui/field.tsx'
import { DeskFault } from './act.tsx'
import { findPeople } from './find.ts'
import { branch } from './scope.ts'

type Person = Schema<'Person'>

interface Result {
  text: string
  people: readonly Person[]
}

/** Search is the one field of the desk. One match opens the person; several are listed. */
export function Search(): JSX.Element {
  const text = ts().desk
  const input = useRef<HTMLInputElement>(null)
  const list = useRef<HTMLUListElement>(null)
  const result = useSignal<Result | undefined>(undefined)
  const action = useAction()

  function search(typed: string): void {
    if (typed.trim() === '') return
    void action.run(async () => {
      const people = await findPeople(typed, isLibrarian.value)
      const [only] = people
      if (people.length === 1 && only !== undefined) {
        result.value = undefined
        go(personPath(only.id))
        announce(only.name)
      } else {
        result.value = { text: typed.trim(), people }
        if (people.length > 0) announce(text.found(people.length))
      }
      input.current?.select() // the next card replaces the text
    })
  }

  useEffect(() => {
    input.current?.focus()
  }, [])
  useEffect(() => {
    result.value = undefined
  }, [here.value.path])
  useCardReader((card) => {
    if (input.current !== null) input.current.value = card
    search(card)
  })

  const none = result.value?.people.length === 0 ? result.value.text : undefined
  return (
    <search class="desk-search">
      <form
        onSubmit={(e) => {
          e.preventDefault()
          search(input.current?.value ?? '')
        }}
      >
        <Field label={text.search} hint={isLibrarian.value ? text.searchHintName : text.searchHint}>
          {(attributes) => (
            <div class="row">
              <input
                {...attributes}
                ref={input}
                type="search"
                maxLength={254}
                autocomplete="off"
                autocapitalize="off"
                spellcheck={false}
                enterkeyhint="search"
                onKeyDown={(e) => {
                  if (e.key === 'ArrowDown') move(e, list.current, -1, 1, input.current)
                }}
              />
              <Button type="submit" kind="main" busy={action.busy.value}>
                {text.find}
              </Button>
            </div>
          )}
        </Field>
      </form>
      <DeskFault problem={action.problem.value} />
      {none !== undefined && (
        <p class="fault" role="alert">
          <bdi>{isLibrarian.value ? text.noneFound(none) : text.noneFoundStaff(none)}</bdi>
        </p>
      )}
      {result.value !== undefined && result.value.people.length > 0 && (
        <ul
          class="plain-list desk-results"
          ref={list}
          aria-label={text.found(result.value.people.length)}
          onKeyDown={(e) => {
            const links = linksOf(list.current)
            const at = links.indexOf(document.activeElement as HTMLAnchorElement)
            if (e.key === 'ArrowDown') move(e, list.current, at, 1, input.current)
            if (e.key === 'ArrowUp') move(e, list.current, at, -1, input.current)
            if (e.key === 'Escape') input.current?.focus()
          }}
        >
          {result.value.people.map((p) => (
            <li key={p.id}>
              <Link href={personPath(p.id)}>
                <bdi>{p.name}</bdi>
                <span>{p.studentId}</span>
                <PersonTags person={p} />
              </Link>
            </li>
          ))}
        </ul>
      )}
    </search>
  )
}

/** PersonTags shows that an account is closed, or its user suspended. */
export function PersonTags({ person }: { person: Person }): JSX.Element {
  const text = ts().desk
  return (
    <>
      {person.closedAt !== undefined && <span class="tag taken">{text.closedTag}</span>}
      {person.suspendedUntil !== undefined && (
        <span class="tag warn">
          {text.suspendedTag(dayAndClock(person.suspendedUntil, zoneOf(branch.value?.code)))}
        </span>
      )}
    </>
  )
}

/** personPath returns the address of a person. The page keeps its branch. */
export function personPath(id: string): string {
  const code = here.value.query.get('branch')
  return `/desk/${id}${code === null ? '' : `?branch=${encodeURIComponent(code)}`}`
}

function linksOf(list: HTMLElement | null): HTMLAnchorElement[] {
  return [...(list?.querySelectorAll('a') ?? [])]
}

/** move moves the focus in the list of results. Above the first one is the field. */
function move(
  e: KeyboardEvent,
  list: HTMLElement | null,
  at: number,
  by: number,
  field: HTMLElement | null,
): void {
  const links = linksOf(list)
  if (links.length === 0) return
  e.preventDefault()
  const next = at + by
  if (next < 0) field?.focus()
  else links[Math.min(next, links.length - 1)]?.focus()
}

const gap = 100 // milliseconds between two keys: a card reader is faster, and few people are
const shortest = 4 // characters of a card

/**
 * useCardReader calls f with the number that a card reader has typed, wherever the focus is, unless it
 * is in a field. Otherwise the Enter at its end would press the button that has the focus.
 */
function useCardReader(f: (card: string) => void): void {
  const latest = useRef(f)
  latest.current = f
  useEffect(() => {
    let typed = ''
    let last = 0
    const key = (e: KeyboardEvent): void => {
      if (e.target instanceof Element && e.target.closest('input, textarea, select, dialog') !== null) return
      if (e.ctrlKey || e.metaKey || e.altKey) return
      const fast = e.timeStamp - last < gap
      last = e.timeStamp
      if (e.key === 'Enter' && fast && typed.length >= shortest) {
        e.preventDefault()
        e.stopPropagation()
        latest.current(typed)
        typed = ''
      } else if (e.key.length === 1) {
        typed = (fast ? typed : '') + e.key
      }
    }
    addEventListener('keydown', key, { capture: true })
    return () => removeEventListener('keydown', key, { capture: true })
  }, [])
}
