/** Values that the browser did not store. They last as long as the page. */
const unstored = new Map<string, string>()

/** readStored returns a value of this device; null: there is none. */
export function readStored(key: string): string | null {
  try {
    return unstored.get(key) ?? localStorage.getItem(key)
  } catch {
    return null // a browser that blocks cookies throws at the first touch
  }
}

/**
 * writeStored keeps a value on this device. If the browser refuses, for example because the disk is full,
 * the value lasts as long as the page.
 */
export function writeStored(key: string, value: string): void {
  try {
    localStorage.setItem(key, value)
    unstored.delete(key)
  } catch {
    unstored.set(key, value)
  }
}

/** removeStored removes a value from this device. */
export function removeStored(key: string): void {
  unstored.delete(key)
  try {
    localStorage.removeItem(key)
  } catch {
    // Nothing was stored.
  }
}
