//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package pki

// lockFolder does nothing on systems without flock: there, who rotates an
// authority from two processes at once has to see to it that they do not.
func lockFolder(string) (unlock func() error, err error) {
	return func() error { return nil }, nil
}
