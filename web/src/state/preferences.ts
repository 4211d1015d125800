import { effect, signal } from '@preact/signals'
import { readStored, writeStored } from './storage.ts'

export type Theme = 'auto' | 'light' | 'dark'

/** theme is the colour scheme that the user has chosen on this device. */
export const theme = signal<Theme>(read('dlsms.theme', ['auto', 'light', 'dark']) ?? 'auto')

effect(() => {
  const chosen = theme.value
  writeStored('dlsms.theme', chosen)
  if (chosen === 'auto') delete document.documentElement.dataset['theme']
  else document.documentElement.dataset['theme'] = chosen
})

/** read returns a stored preference if it is one of the allowed values. */
export function read<T extends string>(key: string, allowed: readonly T[]): T | undefined {
  const value = readStored(key)
  return allowed.find((a) => a === value)
}
