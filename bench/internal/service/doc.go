// Package service is what stands behind every tunnel that is measured: a TCP
// server whose one port does everything (the first byte of a connection says
// what), a trivial HTTPS service, and a name server that leads every name to it.
//
// A connection begins with an operation:
//
//	Echo      everything comes back
//	Source    bytes without end, which do not compress
//	Narrow    a slow Source with a small send buffer: thousands of these, stalled,
//	          must not use up the kernel's memory for TCP
//	Sink      reads without end, and now and then answers how much it has read
//	Generate  n, seed: n bytes that Stream gives for the seed, then the end of the
//	          direction; goes on to read, and remembers the digest under the seed
//	Digest    n: reads n bytes (0: until the end) and answers with their digest
//	Recall    seed: the digest that Generate remembered
//
// Numbers are 8 bytes, big endian; digests are SHA-256.
package service
