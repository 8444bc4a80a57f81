package credential

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"time"
)

const (
	// opaqueTTL is how long a token is kept whose expiry is not known.
	opaqueTTL = time.Minute
	// maxMargin and leastMargin bound how long before its expiry a token is renewed,
	// which else is a fifth of its life.
	maxMargin   = 5 * time.Minute
	leastMargin = 10 * time.Second
	// maxToken bounds a token, in bytes.
	maxToken = 64 << 10
)

// Token is a bearer token. It is shown to nobody by accident.
type Token struct {
	Value string
	// Got is when the source gave it.
	Got time.Time
	// Expires is when it ends; zero where nobody knows.
	Expires time.Time
}

// String and LogValue keep the token out of texts and logs.
func (Token) String() string { return "[redacted]" }

// LogValue implements [slog.LogValuer].
func (Token) LogValue() slog.Value { return slog.StringValue("[redacted]") }

// Fresh returns until when the token may be handed out: a fifth of its life before it
// expires, at most 5 minutes and at least 10 seconds. One whose expiry is not known is
// good for a minute.
func (t Token) Fresh() time.Time {
	if t.Expires.IsZero() {
		return t.Got.Add(opaqueTTL)
	}
	margin := min(max(t.Expires.Sub(t.Got)/5, leastMargin), maxMargin)
	return t.Expires.Add(-margin)
}

// ParseToken takes a text that is a token and nothing else, got at now. The error has
// nothing of the text.
func ParseToken(text []byte, now time.Time) (Token, error) {
	value := strings.TrimSpace(string(text))
	switch {
	case len(value) > maxToken:
		return Token{}, errors.New("larger than 64 KiB")
	case value == "" || strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r > '~' }):
		return Token{}, errors.New("want one token and nothing else")
	}
	return Token{Value: value, Got: now, Expires: expiry(value)}, nil
}

// expiry reads when a token says that it ends, which is no proof of anything (RFC
// 7519 section 4.1.4); zero for a token that is no JWT or does not say.
func expiry(value string) time.Time {
	parts := strings.Split(value, ".")
	if len(parts) != 3 {
		return time.Time{}
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return time.Time{}
	}
	var claims struct {
		Expires float64 `json:"exp"`
	}
	// Beyond that it is no time that package time can count with.
	const latest = 1 << 40
	if json.Unmarshal(payload, &claims) != nil || claims.Expires <= 0 || claims.Expires > latest {
		return time.Time{}
	}
	return time.Unix(int64(claims.Expires), 0).UTC()
}
