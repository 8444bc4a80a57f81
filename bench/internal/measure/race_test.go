//go:build race

package measure

// slow tells that the race detector slows everything down.
const slow = true
