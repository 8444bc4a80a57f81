// Command coredns is CoreDNS with the plugins of a cluster's DNS only:
// kubernetes for cluster.local, hosts for fixed names, bind, errors and ready.
package main

import (
	"github.com/coredns/coredns/coremain"

	// CoreDNS plugins register themselves when they are imported.
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/hosts"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
)

func main() {
	coremain.Run()
}
