// Package credential gets bearer tokens for clients of a hub, and keeps them on the
// disk so that many clients at once cost one of them: it is what the exec credential
// plugin culvert credential does.
//
// A [Source] gets a token: from a file ([File]), from a program ([Command]), from an
// OpenID Connect provider that somebody has logged in at (package oidc), or from a
// Kubernetes cluster by TokenRequest (package kube). A [Cache] has one file for each
// source, mode 0600. Who finds a token there that is good for a while takes it without
// a lock. Who does not takes the lock of that source (package filelock), looks again,
// and asks the source; the others wait for the lock and find what was got.
//
// A token is renewed before it expires: see [Token.Fresh]. One whose expiry nobody
// knows is kept for a minute.
package credential
