// Package presence makes and checks the codes that prove at check-in that a user is in the library.
//
// There are four codes:
//   - The code of a screen is in its QR code. It names the screen and the step in which the screen
//     shows it. A step takes 15 seconds.
//   - The digits of a screen are for users who cannot scan. They do not name the screen, so they
//     are compared with the digits of each screen of the branch.
//   - The code of a seat label names the seat. It has no time: a photo of the label works as well.
//   - The code of a scan proves that the code of a screen was scanned at a second. It is for users who
//     scan before they log in, and is valid for three minutes. Only this package makes it.
//
// Every code follows from a secret, so every replica can check it without a table. No code is used
// up, because all users in the room scan the same picture.
//
// The codes of screens, labels and scans are 31 characters of base32, which stand for 19 bytes:
//
//	byte    0         1 .. 4    5 .. 8    9 .. 18
//	screen  form|key  screen    step      HMAC-SHA-256, the first 10 bytes
//	label   form|key  seat                HMAC-SHA-256, the first 10 bytes
//	scan    form|key  screen    second    HMAC-SHA-256, the first 10 bytes
//
// The upper half of byte 0 is the form of the code, and the lower half a hint at the key. The HMAC
// covers the bytes before it and the library. Each kind of code has a key of its own, which HKDF
// derives from the secret.
package presence
