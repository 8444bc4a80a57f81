package trust

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// plantToken plants a join token: its text, and what is secret inside of it.
func (w *world) plantToken(token string) error {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return fmt.Errorf("a join token of %d parts, want 3", len(parts))
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return fmt.Errorf("join token: %w", err)
	}
	var payload struct{ ID, Secret, Cluster string }
	if err := json.Unmarshal(text, &payload); err != nil {
		return fmt.Errorf("join token: %w", err)
	}
	if payload.Secret == "" {
		return errors.New("join token: no secret in it")
	}
	w.plant("join token "+payload.ID+" of "+payload.Cluster, parts[1])
	w.plant("secret of join token "+payload.ID+" of "+payload.Cluster, payload.Secret)
	return nil
}

// plantKeys plants every private key that lies in the folder of the run.
func (w *world) plantKeys() error {
	found := 0
	err := filepath.WalkDir(testbed.Dir(), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || strings.HasSuffix(path, ".log") || strings.Contains(path, "/etcd/") || strings.Contains(path, "/bin/") {
			return err
		}
		info, err := d.Info()
		if err != nil || info.Size() > 64<<10 {
			return err
		}
		text, err := os.ReadFile(path)
		found += w.plantKey(path, text)
		return err
	})
	if err == nil && found < 10 {
		err = fmt.Errorf("only %d private keys in %s", found, testbed.Dir())
	}
	return err
}

// plantKey plants the private keys in a PEM text, and returns how many there are.
func (w *world) plantKey(name string, text []byte) (found int) {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return found
		}
		if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
			continue
		}
		found++
		// Any line of its text gives a part of the key away. The first is the same
		// for all keys of a kind at its start.
		encoded := base64.StdEncoding.EncodeToString(block.Bytes)
		w.plant("private key "+name, encoded[len(encoded)/2:])
		for i := 64; i+64 <= len(encoded); i += 64 {
			w.plant(fmt.Sprintf("line %d of private key %s", i/64+1, name), encoded[i:i+64])
		}
	}
}

// readLogs returns the text of each log of the run, squid's too.
func readLogs() (map[string]string, error) {
	logs := map[string]string{}
	for _, pattern := range []string{"*.log", "*/*.log"} {
		files, err := filepath.Glob(filepath.Join(testbed.Dir(), pattern))
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			logs[file] = string(text)
		}
	}
	if len(logs) < 2 {
		return nil, fmt.Errorf("only %d logs in %s", len(logs), testbed.Dir())
	}
	return logs, nil
}

// leaked reports each secret that is in a text, in a spelling of its own.
func (w *world) leaked(logs map[string]string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var errs []error
	for name, secret := range w.secrets {
		for _, spelling := range []string{secret, base64.RawURLEncoding.EncodeToString([]byte(secret)), url.QueryEscape(secret)} {
			for file, text := range logs {
				if strings.Contains(text, spelling) {
					errs = append(errs, fmt.Errorf("%s has %s", filepath.Base(file), name))
				}
			}
		}
	}
	return errors.Join(errs...)
}

// racesIn reports what the race detector wrote into a log.
func racesIn(logs map[string]string) error {
	for file, text := range logs {
		if i := strings.Index(text, "WARNING: DATA RACE"); i >= 0 {
			return fmt.Errorf("%s: %s", file, text[i:min(len(text), i+4<<10)])
		}
	}
	return nil
}
