// Package answer makes the HTTP answers that are Culvert's own, at the hub and
// at the agent, and carries the id by which people find a request in logs.
//
// An answer is a Kubernetes Status
// (https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/),
// so that kubectl and client-go print it as they print errors of a cluster. The
// header [HeaderError] is on these answers only; that tells them from those of a
// target.
package answer
