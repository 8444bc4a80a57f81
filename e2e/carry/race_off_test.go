//go:build !race

package carry

// buildFlags make Culvert's processes look for data races when the tests do.
func buildFlags() []string { return nil }
