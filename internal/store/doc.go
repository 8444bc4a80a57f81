// Package store keeps what a hub has to know after a restart, in one file.
//
// The file is a bbolt database: one process has it open at a time, every change
// is on the disk when the call that made it returns, and a process that is
// killed at any moment leaves a whole database.
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
