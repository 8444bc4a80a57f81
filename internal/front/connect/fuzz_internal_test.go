package connect

import (
	"encoding/base64"
	"strings"
	"testing"
)

// FuzzBearer proves that an accepted credential is one token, and that an error has
// nothing of a credential in it.
func FuzzBearer(f *testing.F) {
	for _, seed := range []string{"Bearer x", "Basic eDp5", "basic  eDp5", "Basic ~", "Basic", "", "Digest a", "Bearer", "Basic eA==", "Basic eDo="} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		got, err := bearerOf(in)
		if err != nil {
			if _, secret, ok := strings.Cut(in, " "); ok && len(secret) > 12 && strings.Contains(err.Error(), secret) {
				t.Fatalf("bearerOf(%q): the error has the credential: %v", in, err)
			}
			return
		}
		token, ok := strings.CutPrefix(got, "Bearer ")
		if !ok {
			t.Fatalf("bearerOf(%q) = %q", in, got)
		}
		scheme, rest, _ := strings.Cut(strings.Trim(in, " \t"), " ")
		if strings.EqualFold(scheme, "Basic") {
			if decoded, err := base64.StdEncoding.DecodeString(strings.TrimLeft(rest, " ")); err != nil || token == "" || !strings.HasSuffix(string(decoded), ":"+token) {
				t.Fatalf("bearerOf(%q) = %q", in, got)
			}
		}
	})
}
