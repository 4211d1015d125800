/** pseudo marks every text with brackets and lengthens it by a third, as a translation may be longer. */
export function pseudo<T>(value: T): T {
  if (typeof value === 'string') return mark(value) as T
  if (typeof value === 'function') {
    return ((...args: unknown[]) => mark(String((value as (...a: unknown[]) => unknown)(...args)))) as T
  }
  if (Array.isArray(value)) return value.map(pseudo) as T
  if (typeof value === 'object' && value !== null) {
    return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, pseudo(v)])) as T
  }
  return value
}

function mark(text: string): string {
  return text === '' ? '' : `⟦${text}${'·'.repeat(Math.ceil(text.length / 3))}⟧`
}
