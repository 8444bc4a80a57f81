package main

import (
	"fmt"
	"os"
	"regexp"
	"strings"
)

// tableRow is a line "| O16 | what Culvert gives |" of the table of features.
var tableRow = regexp.MustCompile(`^\|\s*([A-Z][0-9]+)\s*\|(.*)\|\s*$`)

// readFeatures gives the row ids of the tables in the document at path, in
// their order.
func readFeatures(path string) ([]string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the table of features: %w", err)
	}
	var ids []string
	seen := map[string]bool{}
	for i, line := range strings.Split(string(text), "\n") {
		cells := tableRow.FindStringSubmatch(line)
		if cells == nil {
			continue
		}
		id, feature := cells[1], strings.TrimSpace(cells[2])
		switch {
		case seen[id]:
			return nil, fmt.Errorf("%s:%d: row %s is there twice: keep one", path, i+1, id)
		case feature == "":
			return nil, fmt.Errorf("%s:%d: row %s says nothing: write what it gives", path, i+1, id)
		}
		seen[id] = true
		ids = append(ids, id)
	}
	if len(ids) == 0 {
		return nil, fmt.Errorf("%s has no row '| ID | feature |'", path)
	}
	return ids, nil
}
