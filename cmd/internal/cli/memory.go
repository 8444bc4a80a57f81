package cli

import (
	"os"
	"runtime/debug"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/api/resource"
)

// MemoryFlag adds --memory.
func MemoryFlag(f *pflag.FlagSet, memory *resource.Quantity, def, least int64) {
	size := func(n int64) string { return resource.NewQuantity(n, resource.BinarySI).String() }
	f.Func("memory", "memory that the process keeps to, such as 1Gi; half of it is for payload (default "+
		size(def)+", least "+size(least)+")", func(text string) (err error) {
		*memory, err = resource.ParseQuantity(text)
		return err
	})
}

// LimitMemory makes the garbage collector keep the process to memory, or to def
// where that is zero. GOMEMLIMIT of the environment, which the runtime has read
// already, goes before.
func LimitMemory(memory resource.Quantity, def int64) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	if !memory.IsZero() {
		def = memory.Value()
	}
	debug.SetMemoryLimit(def)
}
