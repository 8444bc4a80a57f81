// Package footprint measures what real hub and agent processes take from the
// machine: a hub that is used as one person uses kubectl, and a hub and an agent
// with a thousand sessions that nobody reads.
//
// Everything runs in one private network of the test bed. Each test has a hub and
// an agent of its own, so that the peak of a process is that of its test.
package footprint
