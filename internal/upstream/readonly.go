package upstream

import (
	"fmt"
	"net/http"
	"slices"

	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// readingVerbs change nothing on resources, and readingMethods elsewhere.
var (
	readingVerbs   = []string{"get", "list", "watch"}
	readingMethods = []string{http.MethodGet, http.MethodHead, http.MethodOptions}
)

// actingSubresources do more than to read, whatever the verb: a WebSocket starts
// with GET, and a proxy passes every method on.
var actingSubresources = []string{"exec", "attach", "portforward", "proxy"}

// upgradingSubresources are those whose upgraded streams only carry what is read.
var upgradingSubresources = []string{"log"}

// methodHeaders are those by which frameworks let a GET be something else. An API
// server knows none of them.
var methodHeaders = []string{"x-http-method", "x-http-method-override", "x-method-override"}

// readsKubernetes returns why a request to the API server is more than reading,
// or nil.
func readsKubernetes(r *http.Request, a authorizer.Attributes) error {
	upgrade := r.Header.Get("Upgrade") != ""
	if !a.IsResourceRequest() {
		if upgrade || !slices.Contains(readingMethods, r.Method) {
			return fmt.Errorf("the agent is read-only: %s of %.128q", r.Method, a.GetPath())
		}
		return nil
	}
	switch {
	case !slices.Contains(readingMethods, r.Method) || !slices.Contains(readingVerbs, a.GetVerb()):
		return fmt.Errorf("the agent is read-only: verb %.32q of %.64q", a.GetVerb(), a.GetResource())
	case slices.Contains(actingSubresources, a.GetSubresource()):
		return fmt.Errorf("the agent is read-only: %.64q of %.64q", a.GetSubresource(), a.GetResource())
	case upgrade && a.GetVerb() != "watch" && !slices.Contains(upgradingSubresources, a.GetSubresource()):
		// Subresources of others, such as a console of KubeVirt.
		return fmt.Errorf("the agent is read-only: upgrade of %.64q of %.64q", a.GetSubresource(), a.GetResource())
	}
	return nil
}

// readsService returns why a request to a service is more than reading, or nil.
func readsService(r *http.Request) error {
	if r.Header.Get("Upgrade") != "" || !slices.Contains(readingMethods, r.Method) {
		return fmt.Errorf("the agent is read-only: %.32q of a service, which may change something", r.Method)
	}
	for name := range r.Header {
		if slices.Contains(methodHeaders, fold(name)) {
			return fmt.Errorf("the agent is read-only: %s may give a request to a service another method", name)
		}
	}
	return nil
}
