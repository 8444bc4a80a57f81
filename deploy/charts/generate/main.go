// Command generate makes values.schema.json and the table in README.md of each
// chart from its values.yaml. It runs in deploy/charts: go generate ./deploy/charts.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/culvertdev/culvert/deploy/charts"
)

func main() {
	if err := errors.Join(generate(charts.Hub), generate(charts.Agent)); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func generate(chart string) error {
	text, err := os.ReadFile(filepath.Join(chart, "values.yaml"))
	if err != nil {
		return err
	}
	values, err := charts.ParseValues(text)
	if err != nil {
		return fmt.Errorf("%s: %w", chart, err)
	}
	schema, err := charts.Schema(chart, values)
	if err != nil {
		return fmt.Errorf("%s: %w", chart, err)
	}
	readme := filepath.Join(chart, "README.md")
	before, err := os.ReadFile(readme)
	if err != nil {
		return err
	}
	after, err := charts.WithTable(before, values)
	if err != nil {
		return fmt.Errorf("%s: %w", chart, err)
	}
	return errors.Join(write(filepath.Join(chart, "values.schema.json"), schema), write(readme, after))
}

// write makes a file that everybody may read, as all of the repository.
func write(path string, data []byte) error { return os.WriteFile(path, data, 0o644) } //nolint:gosec // source files
