// Package identity verifies users: passwords, tokens, the key ring, the revocation list, and the
// users of the present database.
//
// Its invariant: a token is valid only if
//
//   - a secret of the key ring signed it,
//   - no revocation covers it, and
//   - the user with its user id exists, and has the student id and the generation of the token.
//
// The generation of a user increases with each change of the password. The parts:
//
//   - Passwords hashes and compares passwords, with slots that are shared fairly.
//   - Tokens signs and verifies tokens with a KeyRing.
//   - Revocations knows the tokens that were revoked before they expired.
//   - Users knows the users that exist in the present database.
//   - Keys verifies service keys, with which programs call.
//
// The package depends neither on gRPC nor on package edge. Its callers pass the key of the client's
// address, and an implementation of Streams.
package identity
