// Package process runs the parts of a benchmark as processes of their own and
// reads what the kernel counts for them.
//
// A part is a [Role] of the same executable: [Start] runs it again with the
// role's name in the environment, and [Enter], first in main or TestMain, turns
// it into that role. The configuration goes in as one line of JSON on standard
// input, what the parent needs to know (addresses that the kernel chose) comes
// back as one line on standard output. A child ends when its standard input does,
// and the kernel kills it when the parent dies.
//
// # Limitations
//
// Linux only: the figures come from /proc.
package process
