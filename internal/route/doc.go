// Package route is the only parser of names and URLs: from the path of a
// request to the cluster and the [wire.Target] that it leads to.
//
// # One spelling
//
// Whoever decides later about a target compares strings. So every name comes
// out of this package in one spelling only: other spellings are either
// normalised here (a missing scheme becomes "https", the escaped colon of some
// clients a colon) or refused with [wire.CodeInvalidTarget], which callers see
// as 400. The agent holds what arrives over the tunnel against the same rules
// with [CheckTarget], since it does not trust the hub's parser.
//
// # Bytes of the path
//
// What follows the cluster or the service is not interpreted and reaches the
// target byte for byte: "%2F", "//", "%20", "+" and "%3A" stay as they came.
// Paths that a target could read as climbing out of where a decision placed
// them are refused, see [CheckPath].
package route
