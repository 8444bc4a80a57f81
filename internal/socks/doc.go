// Package socks is a SOCKS5 server (RFC 1928, RFC 1929) whose targets are behind agents.
//
// It serves CONNECT; BIND and UDP ASSOCIATE are refused with the reply that says so.
// Names are never looked up here: the agent of the cluster does that, in its network. A
// [Server] is told its cluster, or each connection says it, by the user name or by a
// suffix of the host, see [Server.Open].
//
// What a peer can cost before it has said what it wants is bounded: every message has a
// greatest length by its form, and all of them together have HandshakeTimeout.
package socks
