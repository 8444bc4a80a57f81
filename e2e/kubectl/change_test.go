package kubectl

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	core "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// moving is the namespace of the objects that change.
const moving = "moving"

const (
	// changed is how many objects change.
	changed = 1000
	// changers is how many change them at a time, each every changePause.
	changers    = 5
	changePause = 20 * time.Millisecond
	// replacedEach is that one of so many changes is a deletion and a new object of
	// the same name.
	replacedEach = 20
	// lastObject is made after the last change: watches are complete when they show it.
	lastObject = "last"
)

// changeTime is how long objects change: in the slow suite a minute.
func changeTime() time.Duration {
	if testbed.Slow() {
		return time.Minute
	}
	return 15 * time.Second
}

// object is one of the objects, as it begins.
func object(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"key": "0"}}
}

func objectName(i int) string { return fmt.Sprintf("object-%04d", i) }

// each calls f for all objects, some at a time, and returns the first error.
func each(ctx context.Context, f func(ctx context.Context, name string) error) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var all sync.WaitGroup
	for from := range changers {
		all.Go(func() {
			for i := from; i < changed && ctx.Err() == nil; i += changers {
				if err := f(ctx, objectName(i)); err != nil {
					fail(err)
				}
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

// changeAll changes objects for a time and tells how many events that makes.
func changeAll(ctx context.Context, api core.ConfigMapInterface, d time.Duration) (events int, err error) {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	counts := make([]int, changers)
	end := time.Now().Add(d)
	var all sync.WaitGroup
	for from := range changers {
		all.Go(func() {
			ticker := time.NewTicker(changePause)
			defer ticker.Stop()
			// No two change the same object.
			for round, i := 1, from; time.Now().Before(end); round, i = round+1, (i+changers)%changed {
				n, err := changeOne(ctx, api, objectName(i), round)
				if counts[from] += n; err != nil {
					fail(err)
					return
				}
				select {
				case <-ticker.C:
				case <-ctx.Done():
					return
				}
			}
		})
	}
	all.Wait()
	for _, n := range counts {
		events += n
	}
	return events, context.Cause(ctx)
}

// changeOne tells how many events it made.
func changeOne(ctx context.Context, api core.ConfigMapInterface, name string, round int) (events int, err error) {
	if round%replacedEach != 0 {
		_, err := api.Patch(ctx, name, types.MergePatchType, fmt.Appendf(nil, `{"data":{"key":"%d"}}`, round), metav1.PatchOptions{})
		return 1, err
	}
	if err := api.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
		return 0, err
	}
	_, err = api.Create(ctx, object(name), metav1.CreateOptions{})
	return 2, err
}
