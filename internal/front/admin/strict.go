package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
)

// unmarshalStrict refuses unknown fields and data after the end: what is not
// understood must not be taken for done.
func unmarshalStrict(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("data after the end")
	}
	return nil
}
