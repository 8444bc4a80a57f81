package splice

import (
	"fmt"
	"runtime/debug"
)

// Aside calls f in a goroutine of its own, and waits for it. It is for what a goroutine
// does before it joins: to open a session takes a deep stack (policy, audit, dialling),
// and a goroutine that waits keeps what it once grew to, for as long as its session lasts.
// A panic of f is the caller's, who gets the stack of f with it.
func Aside(f func()) {
	failed := ""
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if p := recover(); p != nil {
				failed = fmt.Sprintf("%v\n%s", p, debug.Stack())
			}
		}()
		f()
	}()
	<-done
	if failed != "" {
		panic(failed)
	}
}
