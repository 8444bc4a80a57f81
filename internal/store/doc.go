// Package store keeps what a hub has to know after a restart, in one file.
//
// The file is a bbolt database: one process has it open at a time, every change
// is on the disk when the call that made it returns, and a process that is
// killed at any moment leaves a whole database.
//
// # What is in it
//
// Clusters that were seen; join tokens, of which only a digest of the secret is
// kept; the certificates that the hub issued, until they expire; revocations; and
// clusters that wait to be accepted. How many tokens, certificates of a cluster
// and waiting clusters there are is bounded, and [Store.Prune] removes what has
// had its time: its owner calls it now and then.
//
// # Before and after
//
// A revocation refuses what a cluster had before it and lets through what it got
// after it with a new join token. What is before and what after is decided by
// numbers that each use of a token, each certificate and each revocation gets in
// its transaction, and not by a clock.
//
// # Format
//
// Values are JSON with a format number of their own. A number that this version
// does not know comes from a newer one, and is refused: what an older version
// wrote back would lose what the newer one meant. A field that may be lost that
// way can be added without a new number; any other needs one.
//
// # Limitations
//
// The folder has to be on a file system with locks and memory maps; one disk is
// for one hub.
package store
