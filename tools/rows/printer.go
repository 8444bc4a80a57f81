package main

import (
	"io"
	"slices"
	"strings"
)

// printer shows JSON events as go test without -json and -v does: one closing
// line a package, and the output of what failed.
type printer struct {
	out      io.Writer
	live     bool // show package output and finished top-level tests at once
	packages map[string]*packageOutput
	failed   bool  // a package failed
	err      error // first error of out
}

// packageOutput is what one package's tests have said and not yet shown.
type packageOutput struct {
	lines []string // said outside of any test
	tests map[string]*testOutput
	order []string // tests in the order they started
}

// testOutput is the state of one test or subtest.
type testOutput struct {
	verdict string   // its "--- FAIL: …" line
	lines   []string // everything else it said
	ended   bool
	failed  bool
}

func newPrinter(out io.Writer, live bool) *printer {
	return &printer{out: out, live: live, packages: map[string]*packageOutput{}}
}

// text shows s as it is.
func (p *printer) text(s string) {
	if _, err := io.WriteString(p.out, s); err != nil && p.err == nil {
		p.err = err
	}
}

// end closes the run.
func (p *printer) end() {
	if p.failed {
		p.text("FAIL\n")
	}
}

// event takes the next event of the run.
func (p *printer) event(e event) {
	if e.Action == "build-output" {
		p.text(e.Output)
		return
	}
	if e.Package == "" {
		return
	}
	pkg := p.packages[e.Package]
	if pkg == nil {
		pkg = &packageOutput{tests: map[string]*testOutput{}}
		p.packages[e.Package] = pkg
	}
	if e.Test == "" {
		p.packageEvent(pkg, e)
		return
	}
	p.testEvent(pkg, e)
}

func (p *printer) packageEvent(pkg *packageOutput, e event) {
	switch e.Action {
	case "output":
		if p.live {
			p.text(e.Output)
		} else {
			pkg.lines = append(pkg.lines, e.Output)
		}
	case "fail":
		p.failed = true
		p.failures(pkg)
		p.lines(pkg.lines)
		delete(p.packages, e.Package)
	case "pass", "skip":
		for _, line := range pkg.lines {
			if strings.HasPrefix(line, "ok  \t") || strings.HasPrefix(line, "?   \t") {
				p.text(line)
			}
		}
		delete(p.packages, e.Package)
	}
}

func (p *printer) testEvent(pkg *packageOutput, e event) {
	test := pkg.tests[e.Test]
	if test == nil {
		test = &testOutput{}
		pkg.tests[e.Test] = test
		pkg.order = append(pkg.order, e.Test)
	}
	switch e.Action {
	case "output":
		switch said := strings.TrimLeft(e.Output, " "); {
		case strings.HasPrefix(said, "=== "):
		case strings.HasPrefix(said, "--- "):
			test.verdict = e.Output
		default:
			test.lines = append(test.lines, e.Output)
		}
	case "pass", "fail", "skip":
		test.ended, test.failed = true, e.Action == "fail"
		if p.live && !strings.Contains(e.Test, "/") {
			p.finished(pkg, e.Test)
		}
	}
}

// finished shows the top-level test named top and forgets it and its subtests.
func (p *printer) finished(pkg *packageOutput, top string) {
	if !pkg.tests[top].failed && pkg.tests[top].ended {
		p.text(pkg.tests[top].verdict)
	} else {
		p.failure(pkg, top)
	}
	pkg.order = slices.DeleteFunc(pkg.order, func(name string) bool {
		gone := name == top || strings.HasPrefix(name, top+"/")
		if gone {
			delete(pkg.tests, name)
		}
		return gone
	})
}

// failures shows the tests of a failed package that failed or never ended.
func (p *printer) failures(pkg *packageOutput) {
	for _, name := range pkg.order {
		if !strings.Contains(name, "/") {
			p.failure(pkg, name)
		}
	}
}

// failure shows the top-level test named top, and below it those of its
// subtests that failed or never ended.
func (p *printer) failure(pkg *packageOutput, top string) {
	for _, name := range pkg.order {
		test := pkg.tests[name]
		if name != top && !strings.HasPrefix(name, top+"/") || test.ended && !test.failed {
			continue
		}
		indent := strings.Repeat("    ", pkg.depth(name))
		if test.ended {
			p.text(indent + test.verdict)
		} else {
			p.text(indent + "--- UNFINISHED: " + name + "\n")
		}
		for _, line := range test.lines {
			p.text(indent + line)
		}
	}
}

// depth counts the tests that name is a subtest of. A slash alone tells
// nothing: the name of a subtest may have one in it.
func (pkg *packageOutput) depth(name string) int {
	depth := 0
	for i, c := range name {
		if c == '/' && pkg.tests[name[:i]] != nil {
			depth++
		}
	}
	return depth
}

func (p *printer) lines(lines []string) {
	for _, line := range lines {
		p.text(line)
	}
}
