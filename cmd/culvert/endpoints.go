package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/culvertdev/culvert/deploy/charts"
)

// endpointsTime bounds the request.
const endpointsTime = 30 * time.Second

// endpoint is a Service of a hub.
type endpoint struct {
	Service string `json:"service"`
	Type    string `json:"type"`
	// Addresses are host:port, from outside of the cluster as far as the type leads
	// there. A load balancer that is not there yet has none.
	Addresses []string `json:"addresses"`
}

func endpointsCommand() *cobra.Command {
	var out outputFlag
	var kubeconfig, contextName, namespace string
	cmd := &cobra.Command{
		Use:   "endpoints",
		Short: "Print where a hub that a chart has installed is reached",
		Long: `Endpoints asks the cluster of a hub, with your kubeconfig, for the hub's Services and
prints their addresses: for a load balancer those that DNS has to lead to.`,
		Example: "  culvert endpoints --namespace culvert-hub",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := out.check(); err != nil {
				return err
			}
			rules := clientcmd.NewDefaultClientConfigLoadingRules()
			rules.ExplicitPath = kubeconfig
			cluster, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: contextName}).ClientConfig()
			if clientcmd.IsEmptyConfig(err) {
				err = errors.New("there is none with a cluster in it: give --kubeconfig, or set KUBECONFIG")
			}
			if err != nil {
				return fmt.Errorf("kubeconfig: %w", err)
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), endpointsTime)
			defer cancel()
			found, err := endpointsOf(ctx, cluster, namespace)
			if err != nil {
				return err
			}
			return out.print(cmd.OutOrStdout(), found, func(w io.Writer) error {
				var lines [][]string
				for _, e := range found {
					addresses := strings.Join(e.Addresses, ",")
					if addresses == "" {
						addresses = "pending"
					}
					lines = append(lines, []string{e.Service, e.Type, addresses})
				}
				return rows(w, []string{"SERVICE", "TYPE", "ADDRESSES"}, lines)
			})
		},
	}
	f := cmd.Flags()
	f.StringVarP(&namespace, "namespace", "n", charts.Hub, "namespace of the hub")
	f.StringVar(&kubeconfig, "kubeconfig", "", "file of the kubeconfig (default: KUBECONFIG, or ~/.kube/config)")
	f.StringVar(&contextName, "context", "", "context in it (default: the current one)")
	out.bind(cmd)
	return cmd
}

// endpointsOf lists the Services of hubs in a namespace.
func endpointsOf(ctx context.Context, cluster *rest.Config, namespace string) ([]endpoint, error) {
	cluster = rest.CopyConfig(cluster)
	cluster.NegotiatedSerializer = serializer.NewCodecFactory(runtime.NewScheme()).WithoutConversion()
	client, err := rest.UnversionedRESTClientFor(cluster)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	raw, err := client.Get().AbsPath("/api/v1/namespaces", namespace, "services").
		Param("labelSelector", "app.kubernetes.io/name="+charts.Hub+",!"+charts.MetricsLabel).DoRaw(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the services of %s: %w", namespace, err)
	}
	var services corev1.ServiceList
	if err := json.Unmarshal(raw, &services); err != nil {
		return nil, fmt.Errorf("list the services of %s: %w", namespace, err)
	}
	if len(services.Items) == 0 {
		return nil, fmt.Errorf("namespace %s has no Service of a hub: name the hub's with --namespace", namespace)
	}
	found := make([]endpoint, 0, len(services.Items))
	for i := range services.Items {
		found = append(found, endpointOf(&services.Items[i]))
	}
	return found, nil
}

func endpointOf(s *corev1.Service) endpoint {
	e := endpoint{Service: s.Name, Type: string(s.Spec.Type), Addresses: []string{}}
	var hosts []string
	switch s.Spec.Type {
	case corev1.ServiceTypeLoadBalancer:
		for _, ingress := range s.Status.LoadBalancer.Ingress {
			hosts = append(hosts, ingress.Hostname, ingress.IP)
		}
	case corev1.ServiceTypeNodePort:
		hosts = []string{"NODE"}
	default:
		hosts = []string{s.Name + "." + s.Namespace + ".svc"}
	}
	hosts = slices.DeleteFunc(hosts, func(host string) bool { return host == "" })
	for _, host := range hosts {
		for _, port := range s.Spec.Ports {
			number := port.Port
			if s.Spec.Type == corev1.ServiceTypeNodePort {
				number = port.NodePort
			}
			e.Addresses = append(e.Addresses, net.JoinHostPort(host, strconv.Itoa(int(number))))
		}
	}
	return e
}
