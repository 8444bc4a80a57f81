package enrol_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/culvertdev/culvert/internal/enrol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "PLANTED-secret-0123456789abcdefghij"

func goodToken() enrol.Token {
	sum := sha256.Sum256([]byte("a CA"))
	return enrol.Token{
		ID: "0123456789abcdef", Secret: secret, Hub: "hub.example.com:8443",
		Pins: []string{base64.RawURLEncoding.EncodeToString(sum[:])}, Cluster: "edge-1",
	}
}

func encoded(t *testing.T) string {
	t.Helper()
	text, err := goodToken().Encode()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// textOf is a token's text with a payload of one's own and a right check word.
func textOf(payload string) string {
	body := base64.RawURLEncoding.EncodeToString([]byte(payload))
	sum := sha256.Sum256([]byte(body))
	return enrol.TokenPrefix + "." + body + "." + base64.RawURLEncoding.EncodeToString(sum[:6])
}

func TestTokenText(t *testing.T) {
	t.Run("what is encoded is decoded, and space around it does no harm", func(t *testing.T) {
		for _, text := range []string{encoded(t), " \t" + encoded(t) + "\r\n"} {
			got, err := enrol.DecodeToken(text)
			if err != nil || !reflect.DeepEqual(got, goodToken()) {
				t.Errorf("%v, %v", got, err)
			}
		}
		system := goodToken()
		system.Pins, system.System = nil, true
		text, err := system.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := enrol.DecodeToken(text); err != nil || !got.System {
			t.Errorf("%v, %v", got, err)
		}
	})
	t.Run("O6: a token that was cut off by one character anywhere is recognised before a connection is made", func(t *testing.T) {
		text := encoded(t)
		for i := range len(text) {
			_, err := enrol.DecodeToken(text[:i] + text[i+1:])
			if err == nil {
				t.Fatalf("without character %d it is accepted", i)
			}
			if says := err.Error(); strings.Contains(says, secret) || !strings.Contains(says, "missing") {
				t.Errorf("without character %d: %v", i, err)
			}
		}
	})
	t.Run("O6: a token of which one character was changed is recognised", func(t *testing.T) {
		text := encoded(t)
		for i := range len(text) {
			for _, c := range []string{"A", "b", "."} {
				if changed := text[:i] + c + text[i+1:]; changed != text {
					if _, err := enrol.DecodeToken(changed); err == nil {
						t.Fatalf("with %q as character %d it is accepted", c, i)
					}
				}
			}
		}
	})
	t.Run("each kind of a wrong text has its own sentence", func(t *testing.T) {
		text := encoded(t)
		long := strings.Repeat("a", 9000)
		for _, c := range []struct{ text, says string }{
			{"", "empty: make one with culvert token create"},
			{"  \n", "empty"},
			{text[:40] + "\n" + text[40:], "a space or a line break inside: paste it as one word"},
			{text[:40] + " " + text[40:], "paste it as one word"},
			{text[3:], `does not begin with "culvert-join."`},
			{"sha256~abcdef", `does not begin with "culvert-join."`},
			{long, "9000 characters"},
			{text + ".x", "damaged"},
			{text[:len(text)-9], "damaged"},
			{textOf(`{"v":2,"id":["new"]}`), "version 2, and this program knows version 1"},
			{textOf(`{"id":"a"}`), "version 0"},
			{textOf(`no JSON`), "damaged"},
			{textOf(`{"v":1,"more":1}`), "damaged"},
			{textOf(`{"v":1} {}`), "damaged"},
			{textOf(`{"v":1}`), "id: empty"},
			{textOf(`{"v":1,"id":"a b"}`), "id: want letters"},
			{textOf(`{"v":1,"id":"a"}`), "secret: empty"},
			{textOf(`{"v":1,"id":"a","secret":"b"}`), "hub: want host:port"},
			{textOf(`{"v":1,"id":"a","secret":"b","hub":"h:1","cluster":"A"}`), "cluster"},
			{textOf(`{"v":1,"id":"a","secret":"b","hub":"h:1","cluster":"a"}`), "pins: none"},
			{textOf(`{"v":1,"id":"a","secret":"b","hub":"h:1","cluster":"a","pins":["abc"]}`), "pins[0]: want a SHA-256"},
			{textOf(`{"v":1,"id":"a","secret":"b","hub":"h:1","cluster":"a","pins":["abc"],"system":true}`), "both are set"},
		} {
			_, err := enrol.DecodeToken(c.text)
			if err == nil || !strings.Contains(err.Error(), c.says) || !strings.HasPrefix(err.Error(), "join token: ") {
				t.Errorf("%.60q: %v, want %q", c.text, err, c.says)
			}
		}
	})
	t.Run("O6: nothing that prints a token shows its secret", func(t *testing.T) {
		token := goodToken()
		var log strings.Builder
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "token", token)
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "token", token, "in", []any{token})
		for _, said := range []string{
			fmt.Sprint(token), fmt.Sprintf("%v %+v %#v %s", token, token, token, token), fmt.Sprintf("%+v", struct{ T enrol.Token }{token}), log.String(),
		} {
			if strings.Contains(said, secret) || said == "" {
				t.Errorf("%s", said)
			}
		}
		if raw, err := json.Marshal(token); err != nil || strings.Contains(string(raw), secret) {
			t.Errorf("JSON: %s, %v", raw, err)
		}
	})
}

func FuzzDecodeToken(f *testing.F) {
	text, err := goodToken().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add(textOf(`{"v":1,"id":"a","secret":"b","hub":"h:1","cluster":"a","system":true}`))
	f.Add(textOf(`{"v":1,"id":"a","secret":"b","hub":"[::1]:1","cluster":"a","pins":["abc"]}`))
	f.Add("culvert-join..")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := enrol.DecodeToken(text)
		if err != nil {
			return
		}
		again, err := token.Encode()
		if err != nil {
			t.Fatalf("%q is decoded and cannot be encoded: %v", text, err)
		}
		back, err := enrol.DecodeToken(again)
		if err != nil || !reflect.DeepEqual(back, token) {
			t.Fatalf("%q: %v is %v after a round trip: %v", text, token, back, err)
		}
	})
}
