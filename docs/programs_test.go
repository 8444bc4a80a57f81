package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// programLines is how long a program of README's may be: under 30.
const programLines = 29

// The end-to-end tests build and run these files; README shows their text.
func TestPrograms(t *testing.T) {
	shown := fence.FindAllStringSubmatch(read(t, filepath.Join(root, "README.md")), -1)
	for _, name := range []string{"pods", "sql"} {
		t.Run("README has the program "+name+" as it is compiled and run, in less than 30 lines", func(t *testing.T) {
			text := read(t, filepath.Join(root, "e2e", "cmd", "examples", name, "main.go"))
			if !slices.ContainsFunc(shown, func(m []string) bool { return m[1] == "go" && m[2] == text }) {
				t.Error("its text is not in README.md")
			}
			if n := strings.Count(text, "\n"); n > programLines {
				t.Errorf("%d lines", n)
			}
		})
	}
}

func TestClientGuide(t *testing.T) {
	text := read(t, "client.md")
	t.Run("every name of the library's packages exists", func(t *testing.T) {
		for name, dir := range map[string]string{"client": "../client", "kube": "../client/kube", "culverttest": "../client/culverttest"} {
			exported := exportedOf(t, dir)
			used := regexp.MustCompile(`\b`+name+`\.([A-Z]\w*)`).FindAllStringSubmatch(text, -1)
			if len(used) == 0 {
				t.Errorf("%s is not shown", name)
			}
			for _, m := range used {
				if _, ok := exported[m[1]]; !ok {
					t.Errorf("%s: no such name", m[0])
				}
			}
		}
	})
	t.Run("every code of errors is in the table", func(t *testing.T) {
		var want []string
		for name, value := range exportedOf(t, "../client") {
			if value != "" && codeConstant(t, name) {
				want = append(want, value)
			}
		}
		slices.Sort(want)
		got := cells(sections(text)["Errors"], 0)
		slices.Sort(got)
		same(t, "codes", slices.Compact(got), want)
	})
	t.Run("what is shown of Go is Go", func(t *testing.T) {
		for _, m := range fence.FindAllStringSubmatch(text, -1) {
			if m[1] != "go" {
				continue
			}
			whole := "package p\n" + m[2]
			if !strings.HasPrefix(m[2], "func ") {
				whole = "package p\nfunc f() error {\n" + m[2] + "\nreturn nil\n}\n"
			}
			if _, err := parser.ParseFile(token.NewFileSet(), "client.md", whole, parser.SkipObjectResolution); err != nil {
				t.Errorf("%v:\n%s", err, m[2])
			}
		}
	})
}

// parsed returns the files of a package without its tests.
func parsed(t *testing.T, dir string) []*ast.File {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var files []*ast.File
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return files
}

// exportedOf returns a package's exported names, those of string constants with their
// values.
func exportedOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	names := map[string]string{}
	for _, f := range parsed(t, dir) {
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil && d.Name.IsExported() {
					names[d.Name.Name] = ""
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					exportedSpec(names, spec)
				}
			}
		}
	}
	return names
}

func exportedSpec(names map[string]string, spec ast.Spec) {
	switch spec := spec.(type) {
	case *ast.TypeSpec:
		names[spec.Name.Name] = ""
	case *ast.ValueSpec:
		for i, name := range spec.Names {
			names[name.Name] = ""
			if i < len(spec.Values) {
				if text, ok := spec.Values[i].(*ast.BasicLit); ok && text.Kind == token.STRING {
					names[name.Name], _ = strconv.Unquote(text.Value) // a literal that was parsed
				}
			}
		}
	}
}

// codeConstant tells the codes of errors from other constants of the library.
func codeConstant(t *testing.T, name string) bool {
	t.Helper()
	for _, f := range parsed(t, "../client") {
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.CONST {
				continue
			}
			for _, spec := range g.Specs {
				v, ok := spec.(*ast.ValueSpec)
				if !ok || v.Names[0].Name != name {
					continue
				}
				kind, ok := v.Type.(*ast.Ident)
				return ok && kind.Name == "Code"
			}
		}
	}
	return false
}
