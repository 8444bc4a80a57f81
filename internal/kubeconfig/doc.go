// Package kubeconfig makes the kubeconfigs by which clusters are reached through a
// hub, and puts them into files.
//
// There are four forms ([Mode]), each an [Endpoint] made of plain data:
//
//	path         https://<hub>/<cluster>, the hub's CA
//	sni          https://<name of the cluster>:<port>, the hub's CA
//	passthrough  the same server, the CA and the user of the cluster itself
//	end-to-end   the cluster itself by way of an HTTP proxy, its CA and its user
//
// An [Entry] adds the user and what tools want to know of it ([Info]), which is
// kept in the file as an extension. [Encode] writes a whole file and [Decode] reads
// it back. The hub answers with such a file, and the command culvert puts in the
// user that it knows of.
//
// # Never half of it
//
// [WriteFile] puts a file in the place of another by a rename. [Merge] changes
// files that have other entries, under the lock that client-go takes, and writes
// nothing unless what it would write can be read and has lost nothing. [Check] makes
// a request with the very bytes of a file before it is written.
package kubeconfig
