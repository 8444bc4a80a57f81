package main

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/culvertdev/culvert/cmd/internal/clitest"
	"github.com/culvertdev/culvert/internal/pki"
)

func TestDevelopment(t *testing.T) {
	t.Run("D5: culvert dev makes a CA at its first start, keeps it, and prints its fingerprint", func(t *testing.T) {
		dir := t.TempDir()
		var fingerprints []string
		for range 2 {
			out, err := os.CreateTemp(dir, "stdout-*")
			if err != nil {
				t.Fatal(err)
			}
			cmd := clitest.Command(context.Background(), dir, "dev", "--listen", "127.0.0.1:0", "--state", "state")
			cmd.Stdout = out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = cmd.Process.Kill() }) // it may have ended
			clitest.AwaitText(t, out.Name(), "Ctrl-C ends it")
			ca, err := pki.LoadBundle(filepath.Join(dir, "state", "pki", "serving-ca.crt"))
			if err != nil {
				t.Fatal(err)
			}
			fingerprints = append(fingerprints, pki.Fingerprint(ca.Certificates()[0]))
			clitest.AwaitText(t, out.Name(), "SHA-256 "+fingerprints[len(fingerprints)-1])
			clitest.AwaitText(t, out.Name(), "for development only")
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
			if err := out.Close(); err != nil {
				t.Error(err)
			}
		}
		if fingerprints[0] != fingerprints[1] {
			t.Error("the second start has another CA")
		}
	})
}
