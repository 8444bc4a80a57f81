package policy

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
)

// requestInfo reads requests as a kube-apiserver does, so that what is decided
// here is what is authorized there.
var requestInfo = &request.RequestInfoFactory{
	APIPrefixes:          sets.NewString("api", "apis"),
	GrouplessAPIPrefixes: sets.NewString("api"),
}

// listParameters are those of metav1.ListOptions. Others do not change what a
// request is, and what a client puts into them is its own business: the parser
// logs the parameters that it gets and cannot read.
var listParameters = []string{
	"allowWatchBookmarks", "continue", "fieldSelector", "labelSelector", "limit", "resourceVersion",
	"resourceVersionMatch", "sendInitialEvents", "timeoutSeconds", "watch",
}

// Attributes reads a request to a Kubernetes API with the parser of
// k8s.io/apiserver. escapedPath is the path as it is sent to the API server, and
// rawQuery the query without '?'. u may be nil. The result is also what an audit
// line says of the request. An error means that the API server could not read it
// either; the request is then to be refused.
func Attributes(u user.Info, method, escapedPath, rawQuery string) (*authorizer.AttributesRecord, error) {
	path, err := url.PathUnescape(escapedPath)
	if err != nil {
		return nil, fmt.Errorf("read path: %w", err)
	}
	info, err := requestInfo.NewRequestInfo(&http.Request{
		Method: method,
		URL:    &url.URL{Path: path, RawQuery: listQuery(rawQuery)},
	})
	if err != nil {
		// Its text has the whole URL in it.
		return nil, fmt.Errorf("read path: /%s/… names no resource after its verb", strings.SplitN(strings.Trim(path, "/"), "/", 2)[0])
	}
	return &authorizer.AttributesRecord{
		User:            u,
		Verb:            info.Verb,
		Namespace:       info.Namespace,
		APIGroup:        info.APIGroup,
		APIVersion:      info.APIVersion,
		Resource:        info.Resource,
		Subresource:     info.Subresource,
		Name:            info.Name,
		ResourceRequest: info.IsResourceRequest,
		Path:            info.Path,
	}, nil
}

// listQuery leaves out of a query what is no parameter of a list.
func listQuery(raw string) string {
	if raw == "" {
		return ""
	}
	var kept []string
	for pair := range strings.SplitSeq(raw, "&") {
		key, _, _ := strings.Cut(pair, "=")
		if name, err := url.QueryUnescape(key); err == nil && slices.Contains(listParameters, name) {
			kept = append(kept, pair)
		}
	}
	return strings.Join(kept, "&")
}
