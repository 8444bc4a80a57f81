// Package enrol gives an agent its certificate, and a new one before that
// expires. It is the agent's side and what both sides agree on; the hub's side is
// package service below it, so that an agent carries nothing of a hub.
//
// # Join tokens
//
// A [Token] is what a person carries from the hub to the agent: one word, made by
// [Token.Encode] and read by [DecodeToken]. It says where the hub is and which CA
// its certificate must come from, so that the first connection is as safe as every
// later one, and holds a secret that is good for one use. A text that was damaged
// on its way is recognised before anything is sent. Printing a Token does not show
// its secret.
//
// # Join
//
// [Join] connects with the ALPN protocol [Protocol], without a certificate of its
// own, and turns a token or a service account's token into an [Enrolment]. The
// private key stays with the caller.
//
// # Renewal
//
// [Renew] asks over the connection of the agent's live link, which is who it is.
// The hub lets the link live as long as the new certificate, so nothing has to
// reconnect.
//
// # Errors
//
// What a hub refuses is an [*Error]: a reason to branch on and one sentence that
// says what to do.
package enrol

// Protocol is the ALPN name (RFC 7301) of connections for enrolment.
const Protocol = "culvert.enrol.v1"
