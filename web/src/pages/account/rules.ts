/** The rules of the server for the fields of an account, so that a form can tell them beforehand. */

const passwordBytes = { least: 8, most: 72 }
const nameLength = 100 // characters

/** passwordLength returns the length of a password as the server counts it: bytes of UTF-8 in NFC. */
export function passwordLength(password: string): number {
  return new TextEncoder().encode(password.normalize('NFC')).length
}

/** passwordFits tells whether a password is long enough and not too long. */
export function passwordFits(password: string): boolean {
  const length = passwordLength(password)
  return length >= passwordBytes.least && length <= passwordBytes.most
}

/** passwordTooLong tells whether a password is too long, which its number of characters does not show. */
export function passwordTooLong(password: string): boolean {
  return passwordLength(password) > passwordBytes.most
}

/** studentIdFits tells whether the form of a student number is valid. */
export function studentIdFits(id: string): boolean {
  return /^[A-Za-z0-9._-]{3,32}$/.test(id)
}

/** nameFits tells whether a name is there and not too long. */
export function nameFits(name: string): boolean {
  return name.trim() !== '' && [...name].length <= nameLength
}
