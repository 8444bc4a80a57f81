package main

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// module is left out of the package names shown.
const module = "github.com/culvertdev/culvert/"

// report prints the state of every row of the document features, as the stored
// runs in the folder dir tell it.
func report(out io.Writer, features, dir string) error {
	ids, err := readFeatures(features)
	if err != nil {
		return fmt.Errorf("rows report: %w", err)
	}
	stored, err := readResults(dir)
	if err != nil {
		return fmt.Errorf("rows report: %w", err)
	}
	w := bufio.NewWriter(out)
	rows := stored.rows()
	count := map[state]int{}
	for _, id := range ids {
		tests := rows[id]
		delete(rows, id)
		result := stored.rowState(tests)
		count[result]++
		printRow(w, id, result, stored.order(tests))
	}
	for _, id := range slices.Sorted(maps.Keys(rows)) {
		fmt.Fprintf(w, "note: %s is no row of %s: %s\n", id, features, shown(rows[id][0]))
	}
	for _, pkg := range stored.failedPackages {
		fmt.Fprintf(w, "note: package %s failed\n", strings.TrimPrefix(pkg, module))
	}
	fmt.Fprintf(w, "%d rows: %d pass, %d fail, %d none\n", len(ids), count[statePass], count[stateFail], count[stateNone])
	if err := w.Flush(); err != nil {
		return fmt.Errorf("rows report: %w", err)
	}
	if count[stateFail] > 0 || len(stored.failedPackages) > 0 {
		return errFailed
	}
	return nil
}

// rowState is fail when one test failed or never ended, pass when one passed,
// else none.
func (r *results) rowState(tests []testName) state {
	result := stateNone
	for _, name := range tests {
		switch r.tests[name] {
		case stateFail, stateRunning:
			return stateFail
		case statePass:
			result = statePass
		}
	}
	return result
}

// order puts the tests that failed before those that passed, and leaves out
// those that were skipped.
func (r *results) order(tests []testName) []testName {
	var failed, passed []testName
	for _, name := range tests {
		switch r.tests[name] {
		case stateFail, stateRunning:
			failed = append(failed, name)
		case statePass:
			passed = append(passed, name)
		}
	}
	return append(failed, passed...)
}

func printRow(w io.Writer, id string, result state, tests []testName) {
	if len(tests) == 0 {
		fmt.Fprintf(w, "%-4s %s  -\n", id, result)
		return
	}
	for i, name := range tests {
		if i == 0 {
			fmt.Fprintf(w, "%-4s %s  %s\n", id, result, shown(name))
			continue
		}
		fmt.Fprintf(w, "%11s%s\n", "", shown(name))
	}
}

// shown is the name for people: the package is a folder of the repository.
func shown(name testName) string {
	return strings.TrimPrefix(name.Package, module) + " " + name.Test
}
