package main

import (
	"bytes"
	"encoding/pem"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// rootsPEM are the CAs of Mozilla's store, as PEM: those that go.mod pins, not
// those of the machine that builds. Roots that Mozilla trusts with a condition
// only, such as for certificates from before a date, are left out: PEM cannot say
// the condition.
func rootsPEM() (text []byte, left int, err error) {
	var b bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint != nil {
			left++
			continue
		}
		if err := pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}); err != nil {
			return nil, 0, err
		}
	}
	return b.Bytes(), left, nil
}
