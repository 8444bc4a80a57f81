// Package kube is what of package credential needs Kubernetes: tokens of a service
// account by TokenRequest ([Request]), and the answers of an exec credential plugin
// ([Write]).
package kube
