// Command ocm-addon-manager is the addon manager of Open Cluster Management: the
// controllers that render addon templates, and that approve and sign the requests
// of addons' agents. It runs without leader election, as the one in its cluster.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/openshift/library-go/pkg/controller/controllercmd"
	"github.com/openshift/library-go/pkg/operator/events"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/clock"
	"open-cluster-management.io/ocm/pkg/addon"
)

func main() {
	kubeconfig := flag.String("kubeconfig", "", "file with the credentials for OCM's hub cluster")
	flag.Parse()
	if err := run(*kubeconfig); err != nil {
		fmt.Fprintln(os.Stderr, "ocm-addon-manager:", err)
		os.Exit(1)
	}
}

func run(kubeconfig string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	return addon.RunManager(ctx, &controllercmd.ControllerContext{
		KubeConfig:    cfg,
		EventRecorder: events.NewLoggingEventRecorder("addon-manager", clock.RealClock{}),
	})
}
