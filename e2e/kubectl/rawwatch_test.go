package kubectl

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"

	"k8s.io/client-go/rest"
)

// event is what a watch says of an object, without its content.
type event struct {
	Type   string
	Object struct {
		Metadata struct{ Name, UID, ResourceVersion string }
	}
}

func (e event) String() string {
	m := e.Object.Metadata
	return fmt.Sprintf("%s %s %s %s", e.Type, m.Name, m.UID, m.ResourceVersion)
}

// rawWatch is the answer to a watch as it comes, without a client that would repair
// anything.
type rawWatch struct {
	name string
	body io.ReadCloser
	from *bufio.Reader
	// ended has one error, after events are complete.
	events []event
	ended  chan error
}

// startWatch opens a watch from a version on, over a version of HTTP. It ends with t.
func startWatch(t *testing.T, name string, config *rest.Config, v version, namespace, from string) *rawWatch {
	t.Helper()
	config = rest.CopyConfig(config)
	config.NextProtos = []string{"http/1.1"}
	if v == http2 {
		config.NextProtos = []string{"h2"}
	}
	client, err := rest.HTTPClientFor(config)
	must(t, err)
	t.Cleanup(client.CloseIdleConnections)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	url := config.Host + "/api/v1/namespaces/" + namespace + "/configmaps?watch=1&resourceVersion=" + from
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	must(t, err)
	resp, err := client.Do(req)
	must(t, err)
	t.Cleanup(func() { check(t, resp.Body.Close()) })
	if resp.StatusCode != http.StatusOK || "HTTP/"+fmt.Sprint(resp.ProtoMajor) != string(v)[:6] {
		t.Fatalf("watch %s: %s %s", name, resp.Proto, resp.Status)
	}
	return &rawWatch{name: name, body: resp.Body, from: bufio.NewReader(resp.Body), ended: make(chan error, 1)}
}

// next returns one event.
func (w *rawWatch) next() (event, error) {
	var e event
	line, err := w.from.ReadBytes('\n')
	if err != nil {
		if len(line) > 0 {
			err = fmt.Errorf("%w, within the line %q", err, line)
		}
		return e, err
	}
	if err := json.Unmarshal(line, &e); err != nil {
		return e, fmt.Errorf("watch %s: %w: %q", w.name, err, line)
	}
	if e.Type == "ERROR" {
		return e, fmt.Errorf("watch %s: %s", w.name, line)
	}
	return e, nil
}

// readTo reads events up to one about an object. It sends one result.
func (w *rawWatch) readTo(name string) {
	for {
		e, err := w.next()
		if err == nil {
			w.events = append(w.events, e)
		}
		if err != nil || e.Object.Metadata.Name == name {
			w.ended <- err
			return
		}
	}
}

// await waits until readTo has come to its end.
func (w *rawWatch) await(ctx context.Context) error {
	select {
	case err := <-w.ended:
		if err != nil {
			return fmt.Errorf("watch %s: %w", w.name, err)
		}
		return nil
	case <-ctx.Done():
		err := fmt.Errorf("watch %s: %w", w.name, context.Cause(ctx))
		return errors.Join(err, w.body.Close(), <-w.ended)
	}
}
