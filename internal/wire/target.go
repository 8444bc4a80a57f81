package wire

import (
	"net"
	"strconv"
	"unicode/utf8"
)

// KubernetesAPI returns the target that stands for the peer's own Kubernetes
// API server.
func KubernetesAPI() Target { return Target{Kind: TargetKubernetesAPI} }

// KubernetesTLS returns the target that stands for the peer's own Kubernetes API
// server as raw bytes: the caller's TLS ends there.
func KubernetesTLS() Target { return Target{Kind: TargetKubernetesTLS} }

// Hub returns the target that stands for the HTTP of the peer's own port, where the
// peer is a hub.
func Hub() Target { return Target{Kind: TargetHub} }

// Service returns the target of a Kubernetes Service.
func Service(namespace, name, port, scheme string) Target {
	return Target{Kind: TargetService, Namespace: namespace, Name: name, Port: port, Scheme: scheme}
}

// Address returns the target of a raw TCP address.
func Address(host string, port uint16) Target {
	return Target{Kind: TargetAddress, Host: host, PortNumber: port}
}

// Raw tells whether a session to the target carries bytes as they are, and not
// HTTP/1.1 requests that the peer reads.
func (t Target) Raw() bool { return t.Kind == TargetAddress || t.Kind == TargetKubernetesTLS }

// Fits tells whether every name of the target is within what a peer accepts.
func (t Target) Fits() bool {
	for _, s := range []string{t.Namespace, t.Name, t.Port, t.Scheme, t.Host} {
		if len(s) > maxName || !utf8.ValidString(s) {
			return false
		}
	}
	return true
}

// String returns the target in the form that logs and errors use:
// "kubernetes", "kubernetes-tls", "hub", "service https:default/web:8443" or "tcp db.prod.svc:5432".
func (t Target) String() string {
	switch t.Kind {
	case TargetKubernetesAPI:
		return "kubernetes"
	case TargetKubernetesTLS:
		return "kubernetes-tls"
	case TargetHub:
		return "hub"
	case TargetService:
		s := "service "
		if t.Scheme != "" {
			s += t.Scheme + ":"
		}
		s += t.Namespace + "/" + t.Name
		if t.Port != "" {
			s += ":" + t.Port
		}
		return s
	case TargetAddress:
		return "tcp " + net.JoinHostPort(t.Host, strconv.Itoa(int(t.PortNumber)))
	default:
		return "unknown target"
	}
}
