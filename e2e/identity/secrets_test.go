package identity

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// culvertLogs returns the text of each log of Culvert: those of the processes and
// those of audit.
func culvertLogs() (map[string]string, error) {
	logs := map[string]string{}
	for pattern, least := range map[string]int{"culvert-*.log": 4, "audit-*": 0} {
		files, err := filepath.Glob(filepath.Join(testbed.Dir(), pattern))
		if err != nil {
			return nil, err
		}
		if len(files) < least {
			return nil, fmt.Errorf("only %d logs %s in %s", len(files), pattern, testbed.Dir())
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			logs[filepath.Base(file)] = string(text)
		}
	}
	return logs, nil
}

// leaked reports each credential that is in a log, in a spelling of its own.
func (w *world) leaked(logs map[string]string) error {
	var errs []error
	for name, secret := range w.secrets {
		for _, spelling := range []string{secret, base64.RawURLEncoding.EncodeToString([]byte(secret)), url.QueryEscape(secret)} {
			for file, text := range logs {
				if strings.Contains(text, spelling) {
					errs = append(errs, fmt.Errorf("%s has %s", file, name))
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
