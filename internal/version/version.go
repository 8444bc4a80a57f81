// Package version says which build of Culvert this is.
package version

import "runtime/debug"

// release is set by the linker for release builds:
// -X github.com/culvertdev/culvert/internal/version.release=v1.2.3.
var release string

// String returns the release, or else what the Go toolchain recorded: the
// module's version, or "devel" with the commit where it is known.
func String() string {
	if release != "" {
		return release
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return "devel-" + s.Value[:min(12, len(s.Value))]
		}
	}
	return "devel"
}
