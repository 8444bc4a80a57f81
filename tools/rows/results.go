package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// state is what the stored runs say of a test or of a row.
type state string

const (
	statePass state = "pass"
	stateFail state = "fail"
	// stateNone is a row that no test proves, or a test that was skipped.
	stateNone state = "none"
	// stateRunning is a test with no end in the stored run: it was killed.
	stateRunning state = "running"
)

// testName is a test of a package.
type testName struct{ Package, Test string }

func (n testName) String() string { return n.Package + " " + n.Test }

// results is the content of the stored runs.
type results struct {
	tests          map[testName]state
	failedPackages []string
}

// readResults reads every test-*.json of the folder dir.
func readResults(dir string) (*results, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "test-*.json"))
	if err != nil {
		return nil, fmt.Errorf("read stored results: %w", err)
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("read stored results: %w: %s: run make test first", fs.ErrNotExist, filepath.Join(dir, "test-*.json"))
	}
	r := &results{tests: map[testName]state{}}
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read stored results: %w", err)
		}
		err = r.add(content)
		if err != nil {
			return nil, fmt.Errorf("read stored results %s: %w", path, err)
		}
	}
	return r, nil
}

// add takes the events of one run. A test that failed once stays failed.
func (r *results) add(content []byte) error {
	var problems []error
	for line := range bytes.Lines(content) {
		e, ok, err := parseEvent(line)
		switch {
		case err != nil:
			problems = append(problems, err)
		case !ok || e.Package == "":
		case e.Test == "":
			if e.Action == "fail" {
				r.failedPackages = append(r.failedPackages, e.Package)
			}
		default:
			r.set(testName{e.Package, e.Test}, e.Action)
		}
	}
	return errors.Join(problems...)
}

func (r *results) set(name testName, action string) {
	if r.tests[name] == stateFail {
		return
	}
	switch action {
	case "run":
		r.tests[name] = stateRunning
	case "pass":
		r.tests[name] = statePass
	case "fail":
		r.tests[name] = stateFail
	case "skip":
		r.tests[name] = stateNone
	}
}

// rowIDs is the start of a test name, as go test rewrites it, that carries row
// ids: "O16:_sentence" or "O15,O16:_sentence".
var rowIDs = regexp.MustCompile(`^[A-Z][0-9]+(,_?[A-Z][0-9]+)*:`)

// rows gives the tests of each row id, sorted by name.
func (r *results) rows() map[string][]testName {
	rows := map[string][]testName{}
	for name := range r.tests {
		for _, id := range r.ids(name) {
			rows[id] = append(rows[id], name)
		}
	}
	for _, tests := range rows {
		slices.SortFunc(tests, func(a, b testName) int { return strings.Compare(a.String(), b.String()) })
	}
	return rows
}

// ids gives the rows that name itself carries. A subtest below it carries none
// of them: its result is part of its parent's. What a sentence has after a
// slash is no subtest, which shows in that no test of the shorter name ran.
func (r *results) ids(name testName) []string {
	var ids []string
	elements := strings.Split(name.Test, "/")
	for i, element := range slices.Backward(elements) {
		if i < len(elements)-1 {
			if _, ran := r.tests[testName{name.Package, strings.Join(elements[:i+1], "/")}]; ran {
				break
			}
		}
		if found := rowIDs.FindString(element); found != "" {
			for id := range strings.SplitSeq(strings.TrimSuffix(found, ":"), ",") {
				ids = append(ids, strings.TrimPrefix(id, "_"))
			}
		}
	}
	return ids
}
