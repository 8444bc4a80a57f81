package identity

import (
	"net/http"
	"testing"
)

// BenchmarkRequest is what one request costs in this room, with a token that is in
// the cache of its issuer or in the file.
func BenchmarkRequest(b *testing.B) {
	p := startProvider(b)
	chain := startChain(b, Config{
		TokenFile: writeTokenFile(b, "s3cr3t,alice,1,\"dev,ops\"\n"), AuthenticationConfig: writeAuthenticationConfig(b, p.jwtConfig("")),
	})
	mapper := newMapper(b, Config{})
	for name, token := range map[string]string{"static": "s3cr3t", "oidc": p.token(b, nil)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			r := bearer(b.Context(), token)
			sent := r.Header.Clone()
			for b.Loop() {
				r.Header = sent.Clone()
				caller, err := chain.Identify(r, "edge-1")
				if err != nil {
					b.Fatal(err)
				}
				if caller, err = Assume(b.Context(), r.Header, caller, nil); err != nil {
					b.Fatal(err)
				}
				Strip(r.Header)
				mapped, err := mapper.Map(caller.User)
				if err != nil {
					b.Fatal(err)
				}
				if err := mapped.Apply(http.Header{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
