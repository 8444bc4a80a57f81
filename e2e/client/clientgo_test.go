package client

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
	core "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"

	"github.com/culvertdev/culvert/client"
	"github.com/culvertdev/culvert/client/kube"
)

// through is client-go's configuration of a cluster, and a client of it.
func through(t *testing.T, c *client.Client, cluster string) (*rest.Config, *core.CoreV1Client) {
	t.Helper()
	config, err := kube.RESTConfig(c, cluster)
	must(t, err)
	config.QPS = -1 // no limit of its own
	api, err := core.NewForConfig(config)
	must(t, err)
	return config, api
}

func TestClientGo(t *testing.T) {
	way, err := newRelay(the.port.Addr())
	must(t, err)
	t.Cleanup(way.close)
	cfg := the.config(slog.New(slog.DiscardHandler))
	cfg.Hub = "https://" + way.addr()
	c := newClient(t, cfg)
	for _, cluster := range []string{"edge-1", "edge-2"} {
		_, api := through(t, c, cluster)
		t.Run("K15,O2: client-go creates, watches, updates, lists and deletes in "+cluster, func(t *testing.T) {
			ctx := within(t, time.Minute)
			maps := api.ConfigMaps("work")
			list, err := maps.List(ctx, metav1.ListOptions{})
			must(t, err)
			watching, err := maps.Watch(ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion})
			must(t, err)
			defer watching.Stop()
			made, err := maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "settings"}, Data: map[string]string{"at": cluster}}, metav1.CreateOptions{})
			must(t, err)
			wantEvent(ctx, t, watching, watch.Added, cluster)
			made.Data["at"] = "changed"
			_, err = maps.Update(ctx, made, metav1.UpdateOptions{})
			must(t, err)
			wantEvent(ctx, t, watching, watch.Modified, "changed")
			_, err = maps.Update(ctx, made, metav1.UpdateOptions{})
			if !apierrors.IsConflict(err) {
				t.Errorf("an old version: %v", err)
			}
			must(t, maps.Delete(ctx, "settings", metav1.DeleteOptions{}))
			wantEvent(ctx, t, watching, watch.Deleted, "changed")
			if _, err := maps.Get(ctx, "settings", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
				t.Errorf("deleted: %v", err)
			}
			pods, err := api.Pods("work").List(ctx, metav1.ListOptions{})
			if err != nil || len(pods.Items) != 1 || pods.Items[0].Name != "worker-"+cluster {
				t.Errorf("%v, %v", pods, err)
			}
		})
	}
	t.Run("K15: two clusters were reached over one connection", func(t *testing.T) {
		if n := way.count.Load(); n != 1 {
			t.Errorf("%d connections to the hub", n)
		}
	})
	t.Run("N10: an unknown cluster is a Status that client-go reads, with the hub's hop", func(t *testing.T) {
		_, api := through(t, c, "nobody")
		_, err := api.Pods("work").List(within(t, time.Minute), metav1.ListOptions{})
		if !apierrors.IsNotFound(err) || !apierrors.HasStatusCause(err, "Hop") {
			t.Errorf("%v", err)
		}
	})
	config, api := through(t, c, "edge-1")
	t.Run("K15: exec by WebSocket and by SPDY with the same configuration", func(t *testing.T) {
		url := api.RESTClient().Post().Resource("pods").Namespace("work").Name("worker-edge-1").SubResource("exec").VersionedParams(
			&corev1.PodExecOptions{Command: []string{"cat"}, Stdin: true, Stdout: true, Stderr: true}, scheme.ParameterCodec).URL()
		webSocket, err := remotecommand.NewWebSocketExecutor(config, http.MethodGet, url.String())
		must(t, err)
		old, err := remotecommand.NewSPDYExecutor(config, http.MethodPost, url)
		must(t, err)
		for name, exec := range map[string]remotecommand.Executor{"WebSocket": webSocket, "SPDY": old} {
			var out, stderr bytes.Buffer
			err := exec.StreamWithContext(within(t, time.Minute), remotecommand.StreamOptions{Stdin: bytes.NewBufferString("hello " + name), Stdout: &out, Stderr: &stderr})
			if err != nil || out.String() != "hello "+name || stderr.Len() > 0 {
				t.Errorf("%s: %q, %q, %v", name, &out, &stderr, err)
			}
		}
	})
	t.Run("K15: port-forward with the same configuration", func(t *testing.T) {
		transport, upgrader, err := spdy.RoundTripperFor(config)
		must(t, err)
		url := api.RESTClient().Post().Resource("pods").Namespace("work").Name("worker-edge-1").SubResource("portforward").URL()
		stop, ready, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
		var out, stderr bytes.Buffer
		_, port, err := net.SplitHostPort(podEcho)
		must(t, err)
		forward, err := portforward.NewOnAddresses(spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, url),
			[]string{"127.0.0.1"}, []string{"0:" + port}, stop, ready, &out, &stderr)
		must(t, err)
		go func() { ended <- forward.ForwardPorts() }()
		select {
		case <-ready:
		case err := <-ended:
			t.Fatal(err)
		}
		ports, err := forward.GetPorts()
		must(t, err)
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", ports[0].Local))
		must(t, err)
		if err := converse(conn, "hello"); err != nil {
			t.Error(err)
		}
		must(t, conn.Close())
		close(stop)
		must(t, <-ended)
	})
}

// wantEvent wants the next event of a watch.
func wantEvent(ctx context.Context, t *testing.T, watching watch.Interface, kind watch.EventType, at string) {
	t.Helper()
	select {
	case e := <-watching.ResultChan():
		m, ok := e.Object.(*corev1.ConfigMap)
		if !ok || e.Type != kind || m.Data["at"] != at {
			t.Fatalf("%s %v, want %s with %q", e.Type, e.Object, kind, at)
		}
	case <-ctx.Done():
		t.Fatalf("no event %s", kind)
	}
}
