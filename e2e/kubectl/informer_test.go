package kubectl

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	core "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// informer is client-go's, with a record of what it told.
type informer struct {
	store      cache.Store
	controller cache.Controller
	stop       context.CancelFunc
	done       chan struct{}

	mu   sync.Mutex
	told map[string][]string // resource versions by UID, in their order
}

// startInformer starts one that ends with t, and waits until it has its first list.
func startInformer(ctx context.Context, t *testing.T, api core.CoreV1Interface, namespace string) *informer {
	t.Helper()
	i := &informer{told: map[string][]string{}, done: make(chan struct{})}
	i.store, i.controller = cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.NewListWatchFromClient(api.RESTClient(), "configmaps", namespace, fields.Everything()),
		ObjectType:    &corev1.ConfigMap{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    i.tell,
			UpdateFunc: func(_, object any) { i.tell(object) },
			DeleteFunc: i.tell,
		},
	})
	life, stop := context.WithCancel(context.Background())
	i.stop = stop
	go i.run(life)
	t.Cleanup(func() {
		stop()
		<-i.done
	})
	must(t, testbed.Poll(ctx, "the informer's first list", func(context.Context) error {
		if !i.controller.HasSynced() {
			return errors.New("it is not complete")
		}
		return nil
	}))
	return i
}

// run ends with its context.
func (i *informer) run(ctx context.Context) {
	defer close(i.done)
	i.controller.RunWithContext(ctx)
}

// tell records an event. One that stands for events which were missed shows as a
// version of its own.
func (i *informer) tell(object any) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if c, ok := object.(*corev1.ConfigMap); ok {
		i.told[string(c.UID)] = append(i.told[string(c.UID)], c.ResourceVersion)
	} else {
		i.told["unknown"] = append(i.told["unknown"], fmt.Sprintf("%T", object))
	}
}

// versions is what it told so far.
func (i *informer) versions() map[string][]string {
	i.mu.Lock()
	defer i.mu.Unlock()
	told := map[string][]string{}
	for uid, versions := range i.told {
		told[uid] = slices.Clone(versions)
	}
	return told
}

// stored is the version of each object in the store, by UID.
func (i *informer) stored() map[string]string {
	stored := map[string]string{}
	for _, object := range i.store.List() {
		if c, ok := object.(*corev1.ConfigMap); ok {
			stored[string(c.UID)] = c.ResourceVersion
		}
	}
	return stored
}

// listed is the version of each object at the API server itself, by UID, and that
// of the list.
func listed(ctx context.Context, api core.ConfigMapInterface) (versions map[string]string, at string, err error) {
	list, err := api.List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, "", err
	}
	versions = map[string]string{}
	for _, c := range list.Items {
		versions[string(c.UID)] = c.ResourceVersion
	}
	return versions, list.ResourceVersion, nil
}

// awaitStore waits until the informer has what the API server has.
func (i *informer) awaitStore(ctx context.Context, api core.ConfigMapInterface) error {
	return testbed.Poll(ctx, "the informer to have what the API server has", func(ctx context.Context) error {
		want, _, err := listed(ctx, api)
		if err != nil {
			return err
		}
		if got := i.stored(); !maps.Equal(got, want) {
			return fmt.Errorf("it has %d objects, the API server %d, or other versions of them", len(got), len(want))
		}
		return nil
	})
}

// testInformers changes many objects and holds what comes through the hub against a
// direct watch from the same version.
func testInformers(t *testing.T, w *world) {
	ctx := within(t, changeTime()+4*time.Minute)
	admin := w.managed.AdminContext()
	direct := restConfig(admin.Server, admin.Token, admin.CA)
	api := clientOf(t, direct).ConfigMaps(moving)
	must(t, each(ctx, func(ctx context.Context, name string) error {
		_, err := api.Create(ctx, object(name), metav1.CreateOptions{})
		return err
	}))
	before, from, err := listed(ctx, api)
	must(t, err)
	reference := startWatch(t, "direct", direct, http2, moving, from)
	watches := []*rawWatch{
		startWatch(t, "through the hub, HTTP/1.1", w.through(clusterName), http1, moving, from),
		startWatch(t, "through the hub, HTTP/2", w.through(clusterName), http2, moving, from),
	}
	informer := startInformer(ctx, t, clientOf(t, w.through(clusterName)), moving)
	for _, watch := range append(watches, reference) {
		go watch.readTo(lastObject)
	}
	started := time.Now()
	made, err := changeAll(ctx, api, changeTime())
	must(t, err)
	took := time.Since(started)
	_, err = api.Create(ctx, object(lastObject), metav1.CreateOptions{})
	must(t, err)
	must(t, reference.await(ctx))
	t.Logf("%d events of %d objects in %v", made, changed, took)
	if got := len(reference.events); got != made+1 {
		t.Fatalf("the direct watch has %d events of %d: the reference is wrong", got, made+1)
	}
	for _, watch := range watches {
		t.Run(fmt.Sprintf("K9,O20: no event is lost or doubled in a watch %s, of %d objects that change for %v", watch.name, changed, changeTime()), func(t *testing.T) {
			must(t, watch.await(ctx))
			sameEvents(t, watch.events, reference.events)
		})
	}
	t.Run(fmt.Sprintf("K9: a client-go informer is told of each change of %d objects that change for %v, once, and has them all at the end", changed, changeTime()), func(t *testing.T) {
		must(t, informer.awaitStore(ctx, api))
		// Of what is in its store already it may not have told yet.
		must(t, testbed.Poll(ctx, "the informer to tell of the last object", func(context.Context) error {
			if last := reference.events[made].Object.Metadata; len(informer.versions()[last.UID]) == 0 {
				return errors.New("it has not")
			}
			return nil
		}))
		want := map[string][]string{}
		for uid, version := range before {
			want[uid] = []string{version}
		}
		for _, e := range reference.events {
			m := e.Object.Metadata
			want[m.UID] = append(want[m.UID], m.ResourceVersion)
		}
		got := informer.versions()
		for uid, versions := range want {
			if !slices.Equal(got[uid], versions) {
				t.Errorf("of object %s it told %v, want %v", uid, got[uid], versions)
			}
			delete(got, uid)
		}
		for uid, versions := range got {
			t.Errorf("it told of object %s, versions %v", uid, versions)
		}
	})
}

// sameEvents compares two watches.
func sameEvents(t *testing.T, got, want []event) {
	t.Helper()
	last := 0
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			t.Fatalf("event %d is %s, want %s", i, got[i], want[i])
		}
		version, err := strconv.Atoi(got[i].Object.Metadata.ResourceVersion)
		must(t, err)
		if version <= last {
			t.Fatalf("event %d has version %d after %d", i, version, last)
		}
		last = version
	}
	if len(got) != len(want) {
		t.Errorf("%d events, want %d", len(got), len(want))
	}
}
