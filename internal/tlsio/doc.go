// Package tlsio makes TLS connections move much with few system calls.
//
// crypto/tls writes each record of at most 16 KiB with a system call of its own
// and reads about one a call. For a connection that carries everything between
// two processes that is most of its cost, since each write also wakes the
// reader. A [Conn] puts the records of one Write into one system call, and reads
// ahead as much as has arrived.
//
// It holds buffers only while bytes are moving: a Conn that waits has none.
package tlsio
