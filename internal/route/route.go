package route

import (
	"errors"
	"fmt"
	"strings"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/wire"
)

// Route is what a request path means. It is a plain value.
type Route struct {
	// Cluster is the cluster's name; empty for a path of the hub's own.
	Cluster string
	// Target is what is reached in the cluster, in the one spelling of it:
	// [wire.KubernetesAPI], or a [wire.Service] whose scheme is always set. It
	// is the zero Target for a path of the hub's own.
	Target wire.Target
	// UpstreamPath is the path to send to the target: escaped, byte for byte
	// what the client sent after the cluster or the service, never empty.
	UpstreamPath string
	// Own is what follows "/-/" in a path of the hub's own, such as
	// "healthz"; empty otherwise and for "/-/" itself.
	Own string
	// IsOwn is set when the path is the hub's own.
	IsOwn bool
}

// Parse parses the path of a request to the hub, still escaped and without the
// query. The forms are:
//
//	/-/<own>
//	/<cluster>/<api-path>
//	/<cluster>/api/v1/namespaces/<ns>/services/<[http:|https:]service[:port]>/proxy-service/<path>
//
// The error is a [*fault.Error] of the hub with [wire.CodeInvalidTarget] whose
// text names the field.
func Parse(escapedPath string) (Route, error) {
	r, err := parse(escapedPath)
	if err != nil {
		return Route{}, &fault.Error{Hop: wire.HopHub, Op: "read path", Code: wire.CodeInvalidTarget, Err: err}
	}
	return r, nil
}

// Parse parses the path of a request to the host, which is the target's own path, or
// for a Kubernetes API may be of the form of services. It is as the function [Parse]
// is.
func (h Host) Parse(escapedPath string) (Route, error) {
	r, err := h.parse(escapedPath)
	if err != nil {
		return Route{}, &fault.Error{Hop: wire.HopHub, Op: "read path", Code: wire.CodeInvalidTarget, Cluster: h.Cluster, Err: err}
	}
	return r, nil
}

func (h Host) parse(path string) (Route, error) {
	if err := CheckPath(path); err != nil {
		return Route{}, err
	}
	if h.Target.Kind != wire.TargetKubernetesAPI {
		return Route{Cluster: h.Cluster, Target: h.Target, UpstreamPath: path}, nil
	}
	target, upstream, err := parseService(path)
	if err != nil {
		return Route{}, fmt.Errorf("path: %w", err)
	}
	return Route{Cluster: h.Cluster, Target: target, UpstreamPath: upstream}, nil
}

func parse(path string) (Route, error) {
	if err := CheckPath(path); err != nil {
		return Route{}, err
	}
	cluster, rest, slash := strings.Cut(path[1:], "/")
	if cluster == "-" {
		return Route{Own: rest, IsOwn: true, UpstreamPath: path}, nil
	}
	if cluster == "" {
		return Route{}, errors.New("path: names no cluster, want /<cluster>/<api-path>")
	}
	if err := CheckCluster(cluster); err != nil {
		return Route{}, fmt.Errorf("path: %w", err)
	}
	if slash {
		rest = "/" + rest
	}
	target, upstream, err := parseService(rest)
	if err != nil {
		return Route{}, fmt.Errorf("path: %w", err)
	}
	if upstream == "" {
		upstream = "/"
	}
	return Route{Cluster: cluster, Target: target, UpstreamPath: upstream}, nil
}

// serviceForm is the shape of a service path; empty parts are the variables.
var serviceForm = [...]string{"", "api", "v1", "namespaces", "", "services", "", "proxy-service"}

const (
	namespacePart = 4
	servicePart   = 6
)

// parseService returns the service target and the path that follows when path
// is of the service form, else the Kubernetes API and path itself.
func parseService(path string) (wire.Target, string, error) {
	// One more part than the form has: what follows it is not cut.
	parts := strings.SplitN(path, "/", len(serviceForm)+1)
	if len(parts) < len(serviceForm) {
		return wire.KubernetesAPI(), path, nil
	}
	exact := true
	for i, want := range serviceForm {
		if i == 0 || i == namespacePart || i == servicePart {
			continue
		}
		if parts[i] != want {
			if unescape(parts[i]) != want {
				return wire.KubernetesAPI(), path, nil
			}
			exact = false
		}
	}
	if !exact {
		// One spelling only: this would mean a service to a decoder and the
		// Kubernetes API to everybody else.
		return wire.Target{}, "", errors.New("service: escaped letters in api/v1/namespaces/<ns>/services/<service>/proxy-service, write them plainly")
	}
	scheme, name, port, err := parseSchemeNamePort(parts[servicePart])
	if err != nil {
		return wire.Target{}, "", err
	}
	if err := checkService(parts[namespacePart], name, port); err != nil {
		return wire.Target{}, "", err
	}
	upstream := "/"
	if len(parts) > len(serviceForm) {
		upstream += parts[len(serviceForm)]
	}
	return wire.Service(parts[namespacePart], name, port, scheme), upstream, nil
}

// parseSchemeNamePort reads "[http:|https:]service[:port]". A first part "http"
// or "https" that something follows is always the scheme. Clients that escape
// path parameters send the colon as %3A. The form "https:name:", which
// Kubernetes' JoinSchemeNamePort gives for no port, means no port.
func parseSchemeNamePort(s string) (scheme, name, port string, err error) {
	parts := strings.Split(strings.ReplaceAll(strings.ReplaceAll(s, "%3A", ":"), "%3a", ":"), ":")
	scheme = "https"
	if len(parts) > 1 && (parts[0] == "http" || parts[0] == "https") {
		scheme, parts = parts[0], parts[1:]
		if len(parts) == 2 && parts[1] == "" {
			parts = parts[:1]
		}
	}
	switch {
	case len(parts) == 1:
		return scheme, parts[0], "", nil
	case len(parts) == 2 && parts[1] != "":
		return scheme, parts[0], parts[1], nil
	default:
		return "", "", "", fmt.Errorf("service: %s, want [http:|https:]service[:port]", quote(s))
	}
}

// ParseService parses "[http:|https:]namespace/name[:port]" into the target of a
// service, whose scheme is always set. An error says what is wrong with which field;
// it is not a [*fault.Error].
func ParseService(s string) (wire.Target, error) {
	scheme, rest := "https", s
	for _, known := range []string{"http", "https"} {
		if after, ok := strings.CutPrefix(s, known+":"); ok {
			scheme, rest = known, after
		}
	}
	namespace, name, ok := strings.Cut(rest, "/")
	if !ok {
		return wire.Target{}, fmt.Errorf("%s, want [http:|https:]namespace/name[:port]", quote(s))
	}
	name, port, colon := strings.Cut(name, ":")
	if colon && port == "" {
		return wire.Target{}, fmt.Errorf("port: empty in %s, leave out the colon", quote(s))
	}
	if err := checkService(namespace, name, port); err != nil {
		return wire.Target{}, err
	}
	return wire.Service(namespace, name, port, scheme), nil
}

// unescape decodes s, whose escapes CheckPath found complete.
func unescape(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' {
			b = append(b, unhex(s[i+1])<<4|unhex(s[i+2]))
			i += 2
			continue
		}
		b = append(b, s[i])
	}
	return string(b)
}
