import { api, call, type Schema } from '../../api/client.ts'
import { asProblem } from '../../api/problem.ts'

type Person = Schema<'Person'>
type Field = 'studentId' | 'card' | 'email' | 'name'

/**
 * findPeople finds people by what was typed or read by a card reader. Only an address has an @. A number
 * may be a student number or a card; both are asked at once. Names are asked last, and only if byName
 * is true, because the role of the desk does not allow it.
 */
export async function findPeople(typed: string, byName: boolean): Promise<readonly Person[]> {
  const text = typed.trim()
  if (text === '') return []
  if (text.includes('@')) return find('email', text)
  // A name that is one word may be a student number, too; one with blanks is neither number nor card.
  const exact = /\s/.test(text) ? [] : await Promise.all([find('studentId', text), find('card', text)])
  const people = new Map(exact.flat().map((p) => [p.id, p]))
  if (people.size === 0 && byName && text.length >= 2) return find('name', text)
  return [...people.values()]
}

async function find(field: Field, text: string): Promise<readonly Person[]> {
  try {
    const query: Partial<Record<Field, string>> & { pageSize: number } = { [field]: text, pageSize: 50 }
    return (await call(api.GET('/v1/desk/users', { params: { query } }))).users
  } catch (e) {
    const problem = asProblem(e)
    if (problem.reason === 'INVALID_FIELDS') return [] // such as a card number that is too long
    throw problem
  }
}
