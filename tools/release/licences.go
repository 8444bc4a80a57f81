package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// licenceFile is what a licence is called, and what Apache-2.0 wants passed on.
var licenceFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice|patents)([.-].*)?$`)

// listed is what go list -json says of a package.
type listed struct {
	Dir      string `json:"Dir"`
	Standard bool   `json:"Standard"`
	Module   *struct {
		Path    string `json:"Path"`
		Version string `json:"Version"`
		Dir     string `json:"Dir"`
		Main    bool   `json:"Main"`
	} `json:"Module"`
}

// licences is the text that goes with binaries: every licence of what is linked
// into the programs, each text once, below the names of those that have it.
func (b builder) licences(ctx context.Context, p platform, names []string) ([]byte, error) {
	args := []string{"list", "-mod=readonly", "-deps", "-json=Dir,Standard,Module"}
	for _, name := range names {
		args = append(args, "./cmd/"+name)
	}
	out, err := b.golang(ctx, p, args...)
	if err != nil {
		return nil, fmt.Errorf("licences: %w", err)
	}
	owners := map[string][]string{} // by text
	found := map[string]bool{}      // modules
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var pkg listed
		if err := decoder.Decode(&pkg); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("licences: go list: %w", err)
		}
		if pkg.Standard || pkg.Module == nil || pkg.Module.Main {
			continue
		}
		id := pkg.Module.Path + "@" + pkg.Module.Version
		found[id] = found[id] || false
		// A part that came from elsewhere has its licence beside it.
		for dir := pkg.Dir; ; dir = filepath.Dir(dir) {
			some, err := addLicences(owners, id, pkg.Module.Dir, dir)
			if err != nil {
				return nil, err
			}
			found[id] = found[id] || some
			if dir == pkg.Module.Dir {
				break
			}
		}
	}
	for id, some := range found {
		if !some {
			return nil, fmt.Errorf("licences: %s has no file of a licence: it cannot be passed on", id)
		}
	}
	goroot, err := b.golang(ctx, p, "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	root := strings.TrimSpace(string(goroot))
	if _, err := addLicences(owners, "Go", root, root); err != nil {
		return nil, err
	}
	return writeLicences(owners), nil
}

// addLicences takes the files of one folder of a module.
func addLicences(owners map[string][]string, id, module, dir string) (bool, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false, fmt.Errorf("licences of %s: %w", id, err)
	}
	some := false
	for _, entry := range entries {
		if !entry.Type().IsRegular() || !licenceFile.MatchString(entry.Name()) || strings.HasSuffix(entry.Name(), ".go") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			return false, fmt.Errorf("licences of %s: %w", id, err)
		}
		inside, err := filepath.Rel(module, filepath.Join(dir, entry.Name()))
		if err != nil {
			return false, fmt.Errorf("licences of %s: %w", id, err)
		}
		some = true
		name := id + "/" + filepath.ToSlash(inside)
		clean := strings.TrimSpace(strings.ReplaceAll(string(text), "\r\n", "\n"))
		if !slices.Contains(owners[clean], name) {
			owners[clean] = append(owners[clean], name)
		}
	}
	return some, nil
}

// writeLicences is the text in an order that depends on the names alone.
func writeLicences(owners map[string][]string) []byte {
	texts := make([]string, 0, len(owners))
	for text := range owners {
		slices.Sort(owners[text])
		texts = append(texts, text)
	}
	slices.SortFunc(texts, func(a, b string) int { return strings.Compare(owners[a][0], owners[b][0]) })
	var b bytes.Buffer
	b.WriteString("Culvert's binaries have these works in them, each under the licence below its name.\n")
	for _, text := range texts {
		fmt.Fprintf(&b, "\n%s\n%s\n\n%s\n", strings.Repeat("=", 80), strings.Join(owners[text], "\n"), text)
	}
	return b.Bytes()
}
