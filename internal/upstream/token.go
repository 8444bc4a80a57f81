package upstream

import (
	"fmt"

	"golang.org/x/oauth2"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/wire"
)

// tokenFile is the agent's token in a file: read again each minute, and at once
// after the API server refused it. That is client-go's own source; its default
// way of using it goes on with a token that was refused, or with the first one
// when the file cannot be read.
type tokenFile struct {
	transport.ResettableTokenSource
}

// Token returns the token. The error is a [*fault.Error] of the agent.
func (f tokenFile) Token() (*oauth2.Token, error) {
	token, err := f.ResettableTokenSource.Token()
	if err != nil {
		return nil, &fault.Error{Hop: wire.HopAgent, Op: "read the agent's token", Code: wire.CodeUnavailable, Err: err}
	}
	return token, nil
}

// useTokenFile makes cfg, which is changed, take its token from the file only.
func useTokenFile(cfg *rest.Config) error {
	if cfg.BearerTokenFile == "" {
		return nil
	}
	source := tokenFile{transport.NewCachedFileTokenSource(cfg.BearerTokenFile)}
	if _, err := source.Token(); err != nil {
		return fmt.Errorf("kubernetes: %w", err)
	}
	cfg.BearerToken, cfg.BearerTokenFile = "", ""
	cfg.Wrap(transport.ResettableTokenSourceWrapTransport(source))
	return nil
}
