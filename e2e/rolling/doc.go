// Package rolling restarts a real hub under fifty kubectl loops, and counts what they
// notice.
package rolling
