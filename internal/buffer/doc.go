// Package buffer lends the memory that payload passes through, so that bytes
// need not be copied from hop to hop and a connection that waits needs none.
package buffer
