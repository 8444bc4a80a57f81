package identity

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"sync/atomic"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/token/tokenfile"
)

// maxTokenFile bounds the file, in bytes: some hundred thousand tokens.
const maxTokenFile = 64 << 20

// tokenFile is the static tokens of a file that is followed. It is safe for
// concurrent use.
type tokenFile struct {
	follower

	current atomic.Pointer[staticTokens]
}

func newTokenFile(path string, log *slog.Logger) (*tokenFile, error) {
	f := &tokenFile{follower: follower{
		field: "tokenFile", what: "token file", path: path, limit: maxTokenFile, log: log,
	}}
	f.apply = f.replace
	if err := f.open(); err != nil {
		return nil, err
	}
	return f, nil
}

// AuthenticateToken implements authenticator.Token. It never returns an error.
func (f *tokenFile) AuthenticateToken(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	f.follow()
	return f.current.Load().AuthenticateToken(ctx, token)
}

// replace is the follower's apply.
func (f *tokenFile) replace(data []byte, info fs.FileInfo) ([]any, error) {
	users, err := parseTokenFile(data)
	if err != nil {
		return nil, err
	}
	// A group is somebody's decision: a service whose user comes and goes reads it so.
	if mode := info.Mode().Perm(); mode&0o007 != 0 {
		f.log.Warn("token file can be read by every user of this machine, give it mode 0600, or 0640 and a group of its own",
			"file", f.path, "mode", fmt.Sprintf("%04o", mode))
	}
	f.current.Store(&staticTokens{table: tokenfile.New(users)})
	return []any{"tokens", len(users)}, nil
}
