package testbed

import (
	"fmt"
	"path/filepath"
)

// OpenPolicy lets every caller of a hub reach every service and TCP address, so
// that agents alone decide. It is for tests that are about something else.
const OpenPolicy = `apiVersion: policy.culvert.dev/v1
kind: Policy
rules:
- name: everything
  effect: allow
  services: [{namespace: "*", name: "*"}]
  tcp: [{hosts: ["*"]}]
`

// WriteOpenPolicy writes OpenPolicy into a folder and returns its path.
func WriteOpenPolicy(dir string) (string, error) {
	path := filepath.Join(dir, "open-policy.yaml")
	if err := writeFile(path, []byte(OpenPolicy)); err != nil {
		return "", fmt.Errorf("open policy: %w", err)
	}
	return path, nil
}
