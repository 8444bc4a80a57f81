package main

import (
	"encoding/json"
	"fmt"
)

// event is one line of go test -json; see "go doc cmd/test2json" and, for the
// build events, "go help buildjson".
type event struct {
	Action  string `json:"Action"`
	Package string `json:"Package"`
	Test    string `json:"Test"`
	Output  string `json:"Output"`
}

// parseEvent reads one line. A line that is no event, such as a message of a
// program that writes to the same pipe, gives ok == false.
func parseEvent(line []byte) (e event, ok bool, err error) {
	if len(line) == 0 || line[0] != '{' {
		return event{}, false, nil
	}
	if err := json.Unmarshal(line, &e); err != nil {
		return event{}, false, fmt.Errorf("read go test event %.80q: %w", line, err)
	}
	return e, e.Action != "", nil
}
