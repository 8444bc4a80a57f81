package kubeconfig

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/culvertdev/culvert/internal/answer"
)

// checkTime bounds one request of a check.
const checkTime = 30 * time.Second

// Check makes a request to the API server with a context of a kubeconfig, as kubectl
// would with the same file: its CA, its server name, its proxy, its user. It is the
// version that is asked for, which every user may see who is authenticated; a 403 of
// the API server itself proves as much. A relative path in the file is taken from the
// working folder.
func Check(ctx context.Context, file []byte, name string) error {
	config, err := clientcmd.Load(file)
	if err != nil {
		return fmt.Errorf("check %s: %w", name, err)
	}
	how, err := clientcmd.NewNonInteractiveClientConfig(*config, name, &clientcmd.ConfigOverrides{CurrentContext: name}, nil).ClientConfig()
	if err != nil {
		return fmt.Errorf("check %s: %w", name, err)
	}
	how.Timeout = checkTime
	// A check leaves no connection behind, not even in client-go's cache of them.
	how.Proxy = proxyOf(how)
	client, err := rest.HTTPClientFor(how)
	if err != nil {
		return fmt.Errorf("check %s: %w", name, err)
	}
	defer client.CloseIdleConnections()
	return checkVersion(ctx, client, how.Host, name)
}

// proxyOf keeps what the file or the environment says of a proxy. A function of its
// own keeps client-go from sharing the transport with others of this process.
func proxyOf(how *rest.Config) func(*http.Request) (*url.URL, error) {
	if how.Proxy != nil {
		return how.Proxy
	}
	return http.ProxyFromEnvironment
}

func checkVersion(ctx context.Context, client *http.Client, host, name string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(host, "/")+"/version", http.NoBody)
	if err != nil {
		return fmt.Errorf("check %s: %w", name, err)
	}
	res, err := client.Do(req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err // the URL may have the credentials of a proxy in it
		}
		return fmt.Errorf("check %s: %w", name, err)
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err := errors.Join(err, res.Body.Close()); err != nil {
		return fmt.Errorf("check %s: the answer broke off: %w", name, err)
	}
	if Answered(res) {
		return nil
	}
	return fmt.Errorf("check %s: %s", name, statusText(res, body))
}

// Answered tells whether an answer is of an API server that knows the caller.
func Answered(res *http.Response) bool {
	return res.Header.Get(answer.HeaderError) == "" && (res.StatusCode == http.StatusOK || res.StatusCode == http.StatusForbidden)
}

func statusText(res *http.Response, body []byte) string {
	var status metav1.Status
	if json.Unmarshal(body, &status) == nil && status.Kind == "Status" && status.Message != "" {
		return fmt.Sprintf("%s: %s", res.Status, status.Message)
	}
	return res.Status
}
