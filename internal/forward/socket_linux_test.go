package forward

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestOwnSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	before := syscall.Umask(0)
	ln, err := (&net.ListenConfig{Control: ownSocket}).Listen(t.Context(), "unix", path)
	syscall.Umask(before)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if info, err := os.Stat(path); err != nil || info.Mode() != fs.ModeSocket|socketMode {
		t.Errorf("before its mode is set: %v %v", info, err)
	}
}
