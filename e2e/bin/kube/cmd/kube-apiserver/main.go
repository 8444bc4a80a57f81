// Command kube-apiserver is the Kubernetes API server itself, built from its
// Go module so that a test needs neither a container nor a download of binaries.
package main

import (
	"os"

	"k8s.io/component-base/cli"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

func main() {
	os.Exit(cli.Run(app.NewAPIServerCommand()))
}
