/** ScannedCode is what a QR code or a user's typing says. */
export interface ScannedCode {
  /** bare: the code has no address that tells whether it is of a screen or of a label. */
  kind: 'screen' | 'label' | 'bare' | 'digits'
  code: string
}

const wellFormed = /^[A-Z2-7]{31}$/ // base32

/**
 * readCode reads a code: bare, or at the end of an address with /c/ (screen) or /s/ (label) of any host,
 * in any case. Undefined: it is no code of a library.
 */
export function readCode(text: string): ScannedCode | undefined {
  const [, kind, rest] = /(?:^|\/)(?:([cs])\/)?([^/]*)$/i.exec(text.trim().replace(/[?#].*$/, '')) ?? []
  let code: string
  try {
    code = decodeURIComponent(rest ?? '')
      .replace(/[\s-]/g, '')
      .toUpperCase()
  } catch {
    return undefined
  }
  if (kind === undefined && /^\d{8}$/.test(code)) return { kind: 'digits', code }
  if (!wellFormed.test(code)) return undefined
  if (kind === undefined) return { kind: 'bare', code }
  return { kind: kind.toLowerCase() === 'c' ? 'screen' : 'label', code }
}
