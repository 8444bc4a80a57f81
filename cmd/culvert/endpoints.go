package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	// defaultNamespace and defaultService are what docs/install.md installs.
	defaultNamespace = "culvert"
	defaultService   = "culvert-hub"
	// maxService bounds what is read of an API server's answer, in bytes.
	maxService = 4 << 20
)

// endpoint is one way to a hub that runs in a cluster.
type endpoint struct {
	// Port is the name of the Service's port.
	Port string `json:"port"`
	// From says who can use it: everywhere for a load balancer, cluster for those in
	// the cluster alone, nodes for a port on every node.
	From string `json:"from"`
	// Address is host:port, or :port on every node.
	Address string `json:"address"`
}

func endpointsCommand() *cobra.Command {
	var from, file, namespace, service string
	var output outputFlag
	cmd := &cobra.Command{
		Use:   "endpoints",
		Short: "Print where a hub in a Kubernetes cluster is reached",
		Long: `Print where a hub in a Kubernetes cluster is reached: the addresses of its Service,
those of the load balancer first. It is what kubectl get service shows, as addresses
with their ports, and says what is missing where there is none yet.`,
		Example: `  culvert endpoints
  culvert endpoints --context management --namespace culvert --output json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := output.check(); err != nil {
				return err
			}
			found, err := readService(cmd.Context(), file, from, namespace, service)
			if err != nil {
				return err
			}
			list, err := endpointsOf(found)
			if err != nil {
				return err
			}
			return output.print(cmd.OutOrStdout(), list, func(w io.Writer) error {
				lines := make([][]string, 0, len(list))
				for _, e := range list {
					lines = append(lines, []string{e.Address, e.Port, e.From})
				}
				return rows(w, []string{"ADDRESS", "PORT", "FROM"}, lines)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&from, "context", "", "context of the cluster that the hub runs in (default: the current one)")
	f.StringVar(&file, "kubeconfig", "", "file with --context (default: KUBECONFIG, or ~/.kube/config)")
	f.StringVarP(&namespace, "namespace", "n", defaultNamespace, "namespace of the hub's Service")
	f.StringVar(&service, "service", defaultService, "name of the hub's Service")
	output.bind(cmd)
	return cmd
}

// readService asks the cluster of a context.
func readService(ctx context.Context, file, from, namespace, name string) (*corev1.Service, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = file
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: from}).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("--context: %w", err)
	}
	if config.Proxy == nil {
		config.Proxy = http.ProxyFromEnvironment // a function of its own: the transport is not shared
	}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("--context: %w", err)
	}
	defer client.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	path := fmt.Sprintf("/api/v1/namespaces/%s/services/%s", url.PathEscape(namespace), url.PathEscape(name))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(config.Host, "/")+path, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("service %s/%s: %w", namespace, name, err)
	}
	req.Header.Set("Accept", "application/json")
	res, err := client.Do(req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err
		}
		return nil, fmt.Errorf("service %s/%s: %w", namespace, name, err)
	}
	text, err := io.ReadAll(io.LimitReader(res.Body, maxService))
	if err := errors.Join(err, res.Body.Close()); err != nil {
		return nil, fmt.Errorf("service %s/%s: the answer broke off: %w", namespace, name, err)
	}
	if res.StatusCode != http.StatusOK {
		var status metav1.Status
		if json.Unmarshal(text, &status) != nil || status.Message == "" {
			status.Message = res.Status
		}
		if res.StatusCode == http.StatusNotFound {
			status.Message += ": is the hub installed there? --namespace and --service say where it is"
		}
		return nil, fmt.Errorf("service %s/%s: %s", namespace, name, status.Message)
	}
	var found corev1.Service
	if err := json.Unmarshal(text, &found); err != nil {
		return nil, fmt.Errorf("service %s/%s: the answer is no Service: %w", namespace, name, err)
	}
	return &found, nil
}

// endpointsOf are the addresses of a Service, those that most can reach first.
func endpointsOf(s *corev1.Service) ([]endpoint, error) {
	var found []endpoint
	add := func(from, host string, port corev1.ServicePort, number int32) {
		found = append(found, endpoint{Port: port.Name, From: from, Address: net.JoinHostPort(host, strconv.Itoa(int(number)))})
	}
	everywhere := slices.Clone(s.Spec.ExternalIPs)
	for _, in := range s.Status.LoadBalancer.Ingress {
		everywhere = append(everywhere, cmp.Or(in.IP, in.Hostname)) // the one that kubectl shows
	}
	if s.Spec.Type == corev1.ServiceTypeLoadBalancer && len(everywhere) == 0 {
		return nil, fmt.Errorf("service %s/%s: the load balancer has no address yet: kubectl -n %s describe service %s says what it waits for",
			s.Namespace, s.Name, s.Namespace, s.Name)
	}
	for _, host := range everywhere {
		for _, port := range s.Spec.Ports {
			add("everywhere", host, port, port.Port)
		}
	}
	for _, port := range s.Spec.Ports {
		if port.NodePort != 0 && s.Spec.Type == corev1.ServiceTypeNodePort {
			add("nodes", "", port, port.NodePort)
		}
	}
	for _, port := range s.Spec.Ports {
		add("cluster", s.Name+"."+s.Namespace+".svc", port, port.Port)
	}
	return found, nil
}
