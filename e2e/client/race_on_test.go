//go:build race

package client

// buildFlags make Culvert's processes look for data races when the tests do.
func buildFlags() []string { return []string{"-race"} }
