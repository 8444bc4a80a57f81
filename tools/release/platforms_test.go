package main

import (
	"path/filepath"
	"testing"

	"golang.org/x/tools/go/packages"
)

func TestPlatforms(t *testing.T) {
	platforms, err := parsePlatforms("linux/amd64,linux/arm64,darwin/amd64,darwin/arm64,windows/amd64,windows/arm64", archivePlatforms)
	if err != nil {
		t.Fatal(err)
	}
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	// Types alone: a compiler takes minutes a platform for what is linked in. The test
	// of the installation builds all at its full length.
	for _, p := range platforms {
		t.Run("F9: the programs and all they need fit together on "+p.String(), func(t *testing.T) {
			loaded, err := packages.Load(&packages.Config{
				Context: t.Context(), Dir: root, Env: environment(p),
				Mode: packages.NeedName | packages.NeedFiles | packages.NeedCompiledGoFiles | packages.NeedImports | packages.NeedDeps |
					packages.NeedTypes | packages.NeedTypesSizes | packages.NeedSyntax | packages.NeedModule,
			}, "./cmd/...", "./agent/...", "./server/...", "./internal/...")
			if err != nil {
				t.Fatal(err)
			}
			checked := 0
			packages.Visit(loaded, nil, func(pkg *packages.Package) {
				checked++
				for _, problem := range pkg.Errors {
					t.Errorf("%s: %v", pkg.PkgPath, problem)
				}
			})
			if checked < 300 {
				t.Errorf("%d packages: what is linked in was not looked at", checked)
			}
		})
	}
}
