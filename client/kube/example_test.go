package kube_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"

	"go.uber.org/goleak"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	core "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/culvertdev/culvert/client"
	"github.com/culvertdev/culvert/client/culverttest"
	"github.com/culvertdev/culvert/client/kube"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pods answers as an API server that knows one namespace with one pod; end-to-end tests
// ask real ones.
func pods(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/api/v1/namespaces/work/pods" {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"kind":"PodList","apiVersion":"v1","items":[{"metadata":{"name":"worker-%s"}}]}`, r.Header.Get("Culvert-Test-Cluster"))
}

// One client for the Kubernetes APIs of several clusters.
func ExampleRESTConfig() {
	ctx := context.Background()
	hub, err := culverttest.Run(ctx, culverttest.Config{Clusters: []string{"edge-1", "edge-2"}, Kubernetes: http.HandlerFunc(pods)})
	if err != nil {
		fmt.Println(err)
		return
	}
	c, err := client.New(hub.Config()) // in a program: client.New(client.Config{})
	if err == nil {
		err = errors.Join(list(ctx, c), c.Close())
	}
	if err := errors.Join(err, hub.Close()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// edge-1 worker-edge-1
	// edge-2 worker-edge-2
}

func list(ctx context.Context, c *client.Client) error {
	for _, cluster := range []string{"edge-1", "edge-2"} {
		config, err := kube.RESTConfig(c, cluster)
		if err != nil {
			return err
		}
		api, err := core.NewForConfig(config)
		if err != nil {
			return err
		}
		found, err := api.Pods("work").List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, pod := range found.Items {
			fmt.Println(cluster, pod.Name)
		}
	}
	return nil
}
