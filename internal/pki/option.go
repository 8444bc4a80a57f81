package pki

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"time"
)

// Option changes how certificates are made, loaded and followed. One that has no
// meaning for a function does nothing there.
type Option func(*options)

type options struct {
	log            *slog.Logger
	name           string
	base           string
	openKeys       OpenKeys
	lifetime       time.Duration
	passphraseFile string
	passphraseEnv  string
	fallback       *KeyPair
}

// OpenKeys is what is done about a private key that others on the machine can
// read.
type OpenKeys int

const (
	// OpenKeysDefault refuses the key of an authority that its group or all can
	// read, and warns of another one that all can read: Secrets that Kubernetes
	// mounts have mode 0644 unless told otherwise.
	OpenKeysDefault OpenKeys = iota
	// OpenKeysWarn warns of both.
	OpenKeysWarn
	// OpenKeysRefuse refuses both.
	OpenKeysRefuse
)

// WithLogger sets where reloads and bad files are reported. Default:
// slog.Default() at the time of loading.
func WithLogger(log *slog.Logger) Option {
	return func(o *options) { o.log = log }
}

// WithFileBase names the two files of [SelfServing]: base.crt and base.key. Default
// "serving".
func WithFileBase(base string) Option {
	return func(o *options) { o.base = base }
}

// WithName sets what [Status] and log lines call it.
func WithName(name string) Option {
	return func(o *options) { o.name = name }
}

// WithOpenKeys sets what is done about private keys that others can read.
func WithOpenKeys(policy OpenKeys) Option {
	return func(o *options) { o.openKeys = policy }
}

// WithLifetime sets how long a certificate made by [SelfServing] is valid, or an
// authority made by [LoadOrCreate] and [Authority.Rotate]. 0 stands for the
// defaults, [DefaultLifetime] and ten years.
func WithLifetime(lifetime time.Duration) Option {
	return func(o *options) { o.lifetime = lifetime }
}

// WithPassphraseFile says that a private key is encrypted (PKCS #8, RFC 5958) and
// that the first line of a file is its passphrase. The file is followed with the
// key.
func WithPassphraseFile(path string) Option {
	return func(o *options) { o.passphraseFile = path }
}

// WithPassphraseEnv says that a private key is encrypted and that an environment
// variable holds its passphrase. It is read whenever the key is.
func WithPassphraseEnv(name string) Option {
	return func(o *options) { o.passphraseEnv = name }
}

// WithFallback gives [LoadServing] a pair to use as long as a file does not exist:
// the hub starts, and changes to the files when they appear. Files that exist and
// cannot be used are an error all the same.
func WithFallback(pair *KeyPair) Option {
	return func(o *options) { o.fallback = pair }
}

func newOptions(name string, opts []Option) options {
	o := options{log: slog.Default(), name: name}
	for _, opt := range opts {
		opt(&o)
	}
	return o
}

func (o options) check() error {
	if o.passphraseFile != "" && o.passphraseEnv != "" {
		return errors.New("passphrase: give a file or an environment variable, not both")
	}
	return nil
}

// passphrase returns nil when none is set. in is the file, when there is one.
func (o options) passphrase(in *input) ([]byte, error) {
	switch {
	case in != nil:
		line, _, _ := strings.Cut(string(in.data), "\n")
		if line = strings.TrimSuffix(line, "\r"); line == "" {
			return nil, fmt.Errorf("%s: the first line, which is the passphrase, is empty", in.path)
		}
		return []byte(line), nil
	case o.passphraseEnv != "":
		value := os.Getenv(o.passphraseEnv)
		if value == "" {
			return nil, fmt.Errorf("passphrase: the environment variable %s is empty or not set", quote(o.passphraseEnv))
		}
		return []byte(value), nil
	}
	return nil, nil
}

// judgeMode returns a warning about an open key, or refuses it. closed are the
// bits that should not be set; refuse is the default of the kind of key.
func (o options) judgeMode(in input, closed fs.FileMode, refuse bool) (warning string, err error) {
	mode := in.info.Mode().Perm()
	if mode&closed == 0 || !modesCount() {
		return "", nil
	}
	problem := fmt.Sprintf("%s: mode %04o opens this private key to other users: chmod 600 %s", in.path, mode, in.path)
	if o.openKeys == OpenKeysRefuse || o.openKeys == OpenKeysDefault && refuse {
		return "", errors.New(problem)
	}
	return problem, nil
}
