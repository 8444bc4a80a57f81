package kubectl

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// restarted is the name at the hub of the cluster whose agent is restarted: no
// other test uses it.
const restarted = "restarted"

// testRestart takes an agent away while callers watch.
func testRestart(t *testing.T, w *world) {
	agent := w.startAgent(within(t, 2*time.Minute), t, restarted)
	for how, end := range map[string]func(*testing.T){
		"stops":   func(t *testing.T) { must(t, agent.Stop(within(t, time.Minute))) },
		"crashes": func(t *testing.T) { must(t, agent.Kill9()) },
	} {
		t.Run("an agent that "+how, func(t *testing.T) { w.restart(t, agent, end) })
	}
}

func (w *world) restart(t *testing.T, agent *testbed.Process, end func(*testing.T)) {
	ctx := within(t, 3*time.Minute)
	through := clientOf(t, w.through(restarted))
	_, from, err := listed(ctx, w.direct)
	must(t, err)
	watches := []*rawWatch{
		startWatch(t, "HTTP/1.1", w.through(restarted), http1, namespace, from),
		startWatch(t, "HTTP/2", w.through(restarted), http2, namespace, from),
	}
	informer := startInformer(ctx, t, through, namespace)
	c := &client{w: w, way: access{name: "path", kubeconfig: w.kubeconfigOf(t, restarted)}, stream: webSocket, http: http2}
	follower, err := c.start(ctx, "get", "configmaps", "-w", "--no-headers", "-o", "custom-columns=NAME:.metadata.name")
	must(t, err)
	lines := bufio.NewReader(follower.out)
	await := func(name string) {
		t.Helper()
		for line := ""; line != name+"\n"; {
			line, err = lines.ReadString('\n')
			must(t, err)
		}
	}
	await("first") // by its list, from which its watch begins
	name := fmt.Sprintf("before-%d", time.Now().UnixNano())
	must(t, w.make(ctx, name))
	await(name)
	for _, watch := range watches {
		e, err := watch.next()
		must(t, err)
		if e.Object.Metadata.Name != name {
			t.Fatalf("watch %s: %s", watch.name, e)
		}
	}
	end(t)

	for _, watch := range watches {
		t.Run("K9,O20: a watch over "+watch.name+" ends with an error, between two events", func(t *testing.T) {
			go watch.readTo("nothing")
			err := watch.await(ctx)
			if err == nil || ctx.Err() != nil || strings.Contains(err.Error(), "within the line") {
				t.Errorf("it ended with %v", err)
			}
			t.Log(err)
		})
	}
	t.Run("K9: kubectl get -w notices it and ends", func(t *testing.T) {
		// Of the error it prints an object without a name, as with any API server whose
		// watch breaks.
		rest, err := io.ReadAll(lines)
		must(t, err)
		err = follower.cmd.Wait()
		t.Logf("kubectl printed %q and ended with %v: %s", rest, err, withoutFrames(follower.stderr.String()))
		if ctx.Err() != nil {
			t.Error("it went on")
		}
	})
	t.Run("K9: while no agent is there, client-go gets an error of Kubernetes that tells it to try again", func(t *testing.T) {
		err := through.RESTClient().Get().Namespace(namespace).Resource("configmaps").Name("first").MaxRetries(0).Do(ctx).Error()
		if !apierrors.IsServiceUnavailable(err) {
			t.Fatalf("%v", err)
		}
		if _, again := apierrors.SuggestsClientDelay(err); !again {
			t.Errorf("it does not say when: %v", err)
		}
	})
	// What happens now no watch can see.
	after := strings.Replace(name, "before", "after", 1)
	must(t, errors.Join(w.make(ctx, after), w.change(ctx, name, "changed"), w.direct.Delete(ctx, name, metav1.DeleteOptions{})))
	must(t, agent.Start(ctx))
	t.Run("K9: an informer recovers, with all that happened in between", func(t *testing.T) {
		must(t, informer.awaitStore(ctx, w.direct))
		must(t, w.change(ctx, after, "again"))
		must(t, informer.awaitStore(ctx, w.direct))
	})
	must(t, w.awaitServing(ctx, t, restarted))
}

// kubeconfigOf is the path form of a cluster in a file of its own.
func (w *world) kubeconfigOf(t *testing.T, cluster string) string {
	t.Helper()
	return w.kubeconfig(t, fmt.Sprintf("%s-%d", cluster, time.Now().UnixNano()), testbed.Kubeconfig(w.url(cluster), w.ca, w.token))
}
