package testbed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
)

// pod is a pod that runs on the node.
type pod struct {
	node       *Node
	key        types.NamespacedName
	uid        types.UID
	dir        string
	started    metav1.Time
	containers []*container

	// exits tells of containers that ended; it has room for all.
	exits chan struct{}
	// ending is closed when the pod is deleted, with grace set before; kill is
	// closed when its object is gone.
	ending, kill          chan struct{}
	askToEnd, askToVanish sync.Once
	grace                 time.Duration
}

// followPods follows the pods that are bound to the node until its life ends.
func (n *Node) followPods() {
	_, controller := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.NewListWatchFromClient(n.nodes.RESTClient(), "pods", metav1.NamespaceAll, fields.OneTermEqualSelector("spec.nodeName", n.name)),
		ObjectType:    &corev1.Pod{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(object any) { n.see(object) },
			UpdateFunc: func(_, object any) { n.see(object) },
			DeleteFunc: n.lose,
		},
	})
	controller.RunWithContext(n.life)
}

// see starts a pod that is new, and ends one that is being deleted.
func (n *Node) see(object any) {
	spec, ok := object.(*corev1.Pod)
	if !ok {
		return
	}
	key := types.NamespacedName{Namespace: spec.Namespace, Name: spec.Name}
	n.mu.Lock()
	p := n.pods[key]
	if p != nil && p.uid != spec.UID {
		p.vanish() // its successor has its name
		p = nil
	}
	fresh := p == nil && spec.Status.Phase != corev1.PodSucceeded && spec.Status.Phase != corev1.PodFailed
	if fresh {
		p = &pod{
			node: n, key: key, uid: spec.UID, dir: filepath.Join(n.dir, string(spec.UID)), started: metav1.Now(),
			exits: make(chan struct{}, len(spec.Spec.Containers)), ending: make(chan struct{}), kill: make(chan struct{}),
		}
		for _, c := range spec.Spec.Containers {
			p.containers = append(p.containers, newContainer(p, c))
		}
		n.pods[key] = p
	}
	n.mu.Unlock()
	if p == nil {
		return // it ended before the node began
	}
	if spec.DeletionTimestamp != nil {
		grace := time.Duration(0)
		if spec.DeletionGracePeriodSeconds != nil {
			grace = time.Duration(*spec.DeletionGracePeriodSeconds) * time.Second
		}
		p.end(grace)
	}
	if fresh {
		n.running.Go(p.run)
	}
}

// lose kills a pod whose object is gone.
func (n *Node) lose(object any) {
	if last, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = last.Obj
	}
	spec, ok := object.(*corev1.Pod)
	if !ok {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	key := types.NamespacedName{Namespace: spec.Namespace, Name: spec.Name}
	if p := n.pods[key]; p != nil && p.uid == spec.UID {
		p.vanish()
		delete(n.pods, key) // not before: what is still to come of its changes must not start it again
	}
}

// container finds a container for a request of the API server.
func (n *Node) container(namespace, pod, name string) (*container, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.pods[types.NamespacedName{Namespace: namespace, Name: pod}]
	if p == nil {
		return nil, fmt.Errorf("pod %s/%s is not on node %s", namespace, pod, n.name)
	}
	for _, c := range p.containers {
		if c.spec.Name == name {
			return c, nil
		}
	}
	return nil, fmt.Errorf("pod %s/%s has no container %s", namespace, pod, name)
}

// end asks the pod to end within grace.
func (p *pod) end(grace time.Duration) {
	p.askToEnd.Do(func() {
		p.grace = grace
		close(p.ending)
	})
}

// vanish kills the pod.
func (p *pod) vanish() { p.askToVanish.Do(func() { close(p.kill) }) }

// run is the life of the pod, up to the end of its last process.
func (p *pod) run() {
	defer func() { _ = os.RemoveAll(p.dir) }() // Close removes what is left, and reports
	if err := os.Mkdir(p.dir, 0o700); err != nil {
		for _, c := range p.containers {
			c.fail(err)
		}
	} else {
		for _, c := range p.containers {
			c.start()
		}
	}
	p.tell()
	for left := len(p.containers); left > 0; left-- {
		select {
		case <-p.exits:
			p.tell()
			continue
		case <-p.ending:
			p.terminate()
		case <-p.kill:
		case <-p.node.life.Done():
		}
		p.killAll()
		return
	}
	// All have ended by themselves: their logs stay until the pod is deleted.
	select {
	case <-p.ending:
		p.remove()
	case <-p.kill:
	case <-p.node.life.Done():
	}
}

// terminate lets the containers end, kills them after the grace period and then
// removes the pod's object, as the kubelet does.
func (p *pod) terminate() {
	for _, c := range p.containers {
		c.signal(syscall.SIGTERM)
	}
	timer := time.NewTimer(p.grace)
	defer timer.Stop()
	for _, c := range p.containers {
		select {
		case <-c.ended:
			continue
		case <-timer.C:
		case <-p.kill:
		case <-p.node.life.Done():
		}
		break
	}
	p.killAll()
	p.tell()
	p.remove()
}

// killAll kills what still runs and waits for its end.
func (p *pod) killAll() {
	for _, c := range p.containers {
		c.signal(syscall.SIGKILL)
	}
	for _, c := range p.containers {
		<-c.ended
	}
}

// tell reports the status, again and again while the API server does not take it.
func (p *pod) tell() {
	_ = Poll(p.node.life, "the status of pod "+p.key.String(), p.report) // ends with the node
}

// remove deletes the object of a pod that has ended.
func (p *pod) remove() {
	_ = Poll(p.node.life, "the end of pod "+p.key.String(), func(ctx context.Context) error {
		err := p.node.nodes.Pods(p.key.Namespace).Delete(ctx, p.key.Name, metav1.DeleteOptions{
			GracePeriodSeconds: new(int64), Preconditions: &metav1.Preconditions{UID: &p.uid},
		})
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return nil
		}
		return err
	})
}

// AddPod makes a pod with one container, main, which sleeps, and waits until it is
// Ready.
func (n *Node) AddPod(ctx context.Context, namespace, name string) error {
	err := n.cluster.Apply(ctx, fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: %s}
spec: {nodeName: %s, containers: [{name: main, image: none}]}
`, name, namespace, n.name))
	if err != nil {
		return err
	}
	return n.AwaitPod(ctx, namespace, name)
}

// AwaitPod waits until a pod of the node is Ready, and fails at once when it has
// ended.
func (n *Node) AwaitPod(ctx context.Context, namespace, name string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	return Poll(ctx, "pod "+namespace+"/"+name+" to be Ready", func(attempt context.Context) error {
		p, err := n.nodes.Pods(namespace).Get(attempt, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
				return nil
			}
		}
		status, err := json.Marshal(p.Status.ContainerStatuses)
		err = errors.Join(err, fmt.Errorf("phase %s: %s", p.Status.Phase, status))
		if p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded {
			cancel(err)
		}
		return err
	})
}
