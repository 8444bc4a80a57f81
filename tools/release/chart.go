package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// chartNames are the folders of deploy/charts.
var chartNames = []string{"culvert-hub", "culvert-agent"}

// chartFile describes a chart, and is the first in its archive.
const chartFile = "Chart.yaml"

// chart packs one as helm package does: in a folder of its name, with the version of
// the release, and the tag of its images where values name none.
func (b builder) chart(name string) (file string, content []byte, err error) {
	files := os.DirFS(filepath.Join(b.root, "deploy", "charts", name))
	var entries []entry
	err = fs.WalkDir(files, ".", func(path string, found fs.DirEntry, err error) error {
		if err != nil || found.IsDir() {
			return err
		}
		text, err := fs.ReadFile(files, path)
		if err == nil && path == chartFile {
			text, err = b.describeChart(text)
		}
		entries = append(entries, entry{name: name + "/" + path, mode: 0o644, content: text})
		return err
	})
	if err != nil {
		return "", nil, fmt.Errorf("chart %s: %w", name, err)
	}
	// WalkDir goes by name; what describes the rest is before it.
	first := slices.IndexFunc(entries, func(e entry) bool { return e.name == name+"/"+chartFile })
	if first < 0 {
		return "", nil, fmt.Errorf("chart %s: has no %s", name, chartFile)
	}
	entries = slices.Insert(slices.Delete(slices.Clone(entries), first, first+1), 0, entries[first])
	var packed bytes.Buffer
	z, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return "", nil, err
	}
	if err := writeTar(z, entries, b.source.time); err != nil {
		return "", nil, fmt.Errorf("chart %s: %w", name, err)
	}
	err = z.Close()
	return fmt.Sprintf("%s-%s.tgz", name, b.source.chartVersion()), packed.Bytes(), err
}

// describeChart writes the release's version into a Chart.yaml.
func (b builder) describeChart(text []byte) ([]byte, error) {
	for field, value := range map[string]string{"version": b.source.chartVersion(), "appVersion": b.source.tag()} {
		line := regexp.MustCompile(`(?m)^` + field + `: .*$`)
		if n := len(line.FindAll(text, -1)); n != 1 {
			return nil, fmt.Errorf("%s has %d lines %q, want one", chartFile, n, field+":")
		}
		text = line.ReplaceAllLiteral(text, []byte(field+": "+value))
	}
	return text, nil
}

// chartVersion is the version as Helm takes it, without a v.
func (s source) chartVersion() string { return strings.TrimPrefix(s.version, "v") }
