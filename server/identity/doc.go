// Package identity verifies users: passwords, tokens, the key ring, the revocation list, and the
// users of the present database.
//
// Its invariant: a token counts only if a secret of the key ring signed it, no revocation covers
// it, and the user with its id has its student id and its generation.
//
//   - Passwords hashes and compares passwords, with slots that are shared fairly.
//   - Tokens signs and verifies tokens with a KeyRing.
//   - Revocations knows the tokens that ended before their expiry.
//   - Users knows the users that exist in the present database.
//
// The package knows neither gRPC nor the interceptors: callers pass the key of the client's address
// and an implementation of Streams.
package identity
