package enrol

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"unicode"

	"github.com/culvertdev/culvert/internal/route"
)

// TokenPrefix is how the text of every join token begins, up to its first dot.
const TokenPrefix = "culvert-join"

const (
	// tokenVersion is the newest version of the payload.
	tokenVersion = 1
	// maxToken bounds the text of a token, in bytes.
	maxToken = 8 << 10
	// checkSize is how many bytes of the digest guard the text. They find accidents;
	// a secret they are not.
	checkSize = 6
	// maxPart bounds id and secret, in bytes.
	maxPart = 256
	// maxPins bounds the CAs that a token names: one active, and old ones.
	maxPins = 16
	// pinSize is that of a SHA-256.
	pinSize = sha256.Size
)

// Token is a join token: what an agent needs to get its first certificate. The
// zero value is not valid. It prints without its secret.
type Token struct {
	// ID names the token at the hub. It is no secret.
	ID string
	// Secret proves to the hub that the token's text is known.
	Secret string
	// Hub is the hub's host:port.
	Hub string
	// Pins are the authorities of which the hub's certificate must come from one,
	// each as pki.Pin writes it. Empty when System is set.
	Pins []string
	// System says that the hub's certificate comes from a CA that operating systems
	// trust.
	System bool
	// Cluster is which one the token is for. It is for messages: the hub knows.
	Cluster string
}

// payload is a Token in its text.
type payload struct {
	Version int      `json:"v"`
	ID      string   `json:"id"`
	Secret  string   `json:"secret"`
	Hub     string   `json:"hub"`
	Pins    []string `json:"pins,omitempty"`
	System  bool     `json:"system,omitempty"`
	Cluster string   `json:"cluster"`
}

// String is for people: it has no secret.
func (t Token) String() string {
	return fmt.Sprintf("join token %s of cluster %s at %s", t.ID, t.Cluster, t.Hub)
}

// GoString implements [fmt.GoStringer] without the secret.
func (t Token) GoString() string { return t.String() }

// LogValue implements [slog.LogValuer] without the secret.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.String()) }

// Encode returns the text of a token: one word of letters, digits and "-._". The
// error names the field that is wrong.
func (t Token) Encode() (string, error) {
	if err := t.check(); err != nil {
		return "", fmt.Errorf("make join token: %w", err)
	}
	//nolint:gosec // the text of a token is what carries the secret
	raw, err := json.Marshal(payload{
		Version: tokenVersion, ID: t.ID, Secret: t.Secret, Hub: t.Hub, Pins: t.Pins, System: t.System, Cluster: t.Cluster,
	})
	if err != nil {
		return "", fmt.Errorf("make join token: %w", err)
	}
	body := base64.RawURLEncoding.EncodeToString(raw)
	return TokenPrefix + "." + body + "." + checkOf(body), nil
}

// checkOf returns the check word of a payload's text.
func checkOf(body string) string {
	sum := sha256.Sum256([]byte(body))
	return base64.RawURLEncoding.EncodeToString(sum[:checkSize])
}

// errDamaged is said of a text whose parts do not fit together. It has nothing of
// the text in it.
var errDamaged = errors.New("the text is damaged: a character is missing or changed: copy all of the line that culvert token create printed")

// DecodeToken reads the text of a token. Space around it is ignored. The error
// says what is wrong with the text, and has nothing of it in it.
func DecodeToken(text string) (Token, error) {
	t, err := decodeToken(strings.TrimSpace(text))
	if err != nil {
		return Token{}, fmt.Errorf("join token: %w", err)
	}
	return t, nil
}

func decodeToken(text string) (Token, error) {
	switch {
	case text == "":
		return Token{}, errors.New("empty: make one with culvert token create")
	case len(text) > maxToken:
		return Token{}, fmt.Errorf("%d characters, and no token has more than %d", len(text), maxToken)
	case strings.ContainsFunc(text, unicode.IsSpace):
		return Token{}, errors.New("there is a space or a line break inside: paste it as one word")
	}
	parts := strings.Split(text, ".")
	if parts[0] != TokenPrefix {
		return Token{}, fmt.Errorf("the text does not begin with %q: its start is missing, or it is something else", TokenPrefix+".")
	}
	if len(parts) != 3 || subtle.ConstantTimeCompare([]byte(parts[2]), []byte(checkOf(parts[1]))) != 1 {
		return Token{}, errDamaged
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(parts[1])
	if err != nil {
		return Token{}, errDamaged
	}
	// The version first: nothing else of a newer token has to make sense here.
	var head struct {
		Version int `json:"v"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return Token{}, errDamaged
	}
	if head.Version != tokenVersion {
		return Token{}, fmt.Errorf("version %d, and this program knows version %d: use the agent of the hub's release", head.Version, tokenVersion)
	}
	var p payload
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields() // a new field is a new version
	if err := d.Decode(&p); err != nil || d.More() {
		return Token{}, errDamaged
	}
	t := Token{ID: p.ID, Secret: p.Secret, Hub: p.Hub, System: p.System, Cluster: p.Cluster}
	if len(p.Pins) > 0 {
		t.Pins = p.Pins
	}
	if err := t.check(); err != nil {
		return Token{}, err
	}
	return t, nil
}

// check names the first field that is wrong.
func (t Token) check() error {
	if err := checkPart("id", t.ID); err != nil {
		return err
	}
	if err := checkPart("secret", t.Secret); err != nil {
		return err
	}
	if _, err := route.ParseAddress(t.Hub); err != nil {
		return fmt.Errorf("hub: want host:port: %w", err)
	}
	if err := route.CheckCluster(t.Cluster); err != nil {
		return err
	}
	switch {
	case t.System && len(t.Pins) > 0:
		return errors.New("pins, system: both are set, want one")
	case !t.System && len(t.Pins) == 0:
		return errors.New("pins: none, so that nothing would tell the hub from somebody else")
	case len(t.Pins) > maxPins:
		return fmt.Errorf("pins: %d, at most %d are allowed", len(t.Pins), maxPins)
	}
	for i, pin := range t.Pins {
		if err := checkPin(pin); err != nil {
			return fmt.Errorf("pins[%d]: %w", i, err)
		}
	}
	return nil
}

// checkPart keeps id and secret to the letters of base64url, whatever made them.
func checkPart(field, s string) error {
	switch {
	case s == "":
		return fmt.Errorf("%s: empty", field)
	case len(s) > maxPart:
		return fmt.Errorf("%s: %d characters, at most %d are allowed", field, len(s), maxPart)
	case !isWord(s):
		return fmt.Errorf("%s: want letters, digits, '-' and '_' only", field)
	}
	return nil
}

// isWord reports whether s has nothing but the letters of base64url.
func isWord(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

func checkPin(pin string) error {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(pin)
	if err != nil || len(raw) != pinSize {
		return errors.New("want a SHA-256 in base64url without padding")
	}
	return nil
}

// MarshalJSON implements [json.Marshaler] without the secret: who wants the whole
// text calls [Token.Encode].
func (t Token) MarshalJSON() ([]byte, error) { return json.Marshal(t.String()) }
