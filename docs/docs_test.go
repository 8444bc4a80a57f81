// Package docs_test keeps the documentation true: examples, flags, fields, codes,
// links and command lines are held against the programs.
package docs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"go.uber.org/goleak"
)

// root is the repository.
const root = ".."

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// documents returns the paths of all texts of the repository.
func documents(t *testing.T) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "bin" && filepath.Dir(path) == root):
			return fs.SkipDir
		case strings.HasSuffix(path, ".md"):
			found = append(found, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

var link = regexp.MustCompile(`\[[^\]]*\]\(([^)\s]+)\)`)

func TestLinks(t *testing.T) {
	for _, path := range documents(t) {
		t.Run("every link leads somewhere: "+filepath.Base(path), func(t *testing.T) {
			for _, m := range link.FindAllStringSubmatch(withoutFences(read(t, path)), -1) {
				file, anchor, _ := strings.Cut(m[1], "#")
				if strings.Contains(file, "://") {
					continue
				}
				target := path
				if file != "" {
					target = filepath.Join(filepath.Dir(path), filepath.FromSlash(file))
				}
				if _, err := os.Stat(target); err != nil {
					t.Errorf("%s: %v", m[1], err)
				} else if anchor != "" && !slices.Contains(anchors(read(t, target)), anchor) {
					t.Errorf("%s: no such heading", m[1])
				}
			}
		})
	}
}

var fence = regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$")

func withoutFences(text string) string { return fence.ReplaceAllString(text, "") }

// anchors returns what the headings of a document are linked by: lower case,
// spaces as hyphens, and of the rest letters, digits, hyphens and underscores.
func anchors(text string) []string {
	var found []string
	for line := range strings.Lines(withoutFences(text)) {
		title := strings.TrimLeft(line, "#")
		if title == line || !strings.HasPrefix(title, " ") {
			continue
		}
		anchor := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
				return unicode.ToLower(r)
			default:
				return -1
			}
		}, strings.TrimSpace(title))
		for n, plain := 1, anchor; slices.Contains(found, anchor); n++ {
			anchor = plain + "-" + strconv.Itoa(n)
		}
		found = append(found, anchor)
	}
	return found
}
