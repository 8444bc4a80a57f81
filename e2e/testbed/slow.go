package testbed

import "os"

// slowVariable switches the slow suite on.
const slowVariable = "CULVERT_SLOW"

// Slow tells that tests shall take their full time (make slow): what is about long
// times takes those that it is about, where a usual run takes shorter ones.
func Slow() bool { return os.Getenv(slowVariable) != "" }
