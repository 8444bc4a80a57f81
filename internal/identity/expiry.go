package identity

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"strings"
	"time"
)

// expiry returns the time in the claim exp of a token that is a JWT (RFC 7519
// section 4.1.4), and false for any other token. The signature is not looked at:
// the claim is only ever used to refuse a token sooner than its backend would,
// so that a cached review is not used past it.
func expiry(token string) (time.Time, bool) {
	header, rest, ok := strings.Cut(token, ".")
	if !ok || header == "" {
		return time.Time{}, false
	}
	payload, signature, ok := strings.Cut(rest, ".")
	if !ok || strings.Contains(signature, ".") {
		return time.Time{}, false
	}
	raw, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		return time.Time{}, false
	}
	// A map, since a struct would take the claim Exp for exp.
	var claims map[string]json.RawMessage
	var exp *float64
	if json.Unmarshal(raw, &claims) != nil || json.Unmarshal(claims["exp"], &exp) != nil || exp == nil {
		return time.Time{}, false
	}
	// Far enough for any clock, and within what an int64 of seconds holds.
	const limit = 1 << 40
	seconds, fraction := math.Modf(max(-limit, min(limit, *exp)))
	return time.Unix(int64(seconds), int64(fraction*float64(time.Second))), true
}
