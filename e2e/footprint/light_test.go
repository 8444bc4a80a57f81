package footprint

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

const (
	// lightTime is how long the light use lasts, and lightPause how long the person
	// thinks between two commands.
	lightTime  = 8 * time.Second
	lightPause = time.Second
	// lightObjects are listed, of lightValue bytes each: lists are of some size.
	lightObjects, lightValue = 200, 4 << 10
	// What a lightly used hub may take.
	lightMemory = 128 << 20
	lightCPU    = 0.1
)

func testLight(t *testing.T, l *lab) {
	t.Run("D21: a hub with one agent, used with kubectl, stays within 128 MiB and a tenth of a CPU", func(t *testing.T) {
		ctx := within(t, 2*time.Minute)
		must(t, l.managed.Apply(ctx, lightManifest()))
		h := l.startHub(t, "light")
		kubeconfig := filepath.Join(l.dir, "light", "kubeconfig")
		must(t, os.WriteFile(kubeconfig, testbed.Kubeconfig("https://"+h.address+"/"+clusterName, h.ca, userToken), 0o600))
		k := l.managed.KubectlAs(kubeconfig)
		// The first command asks for everything that the API server can do.
		_, err := k.Run(ctx, "get", "namespaces")
		must(t, err)
		watch := startWatch(ctx, t, k)

		began, before := time.Now(), cpuTime(t, h.process)
		commands, round := 0, 0
		ticker := time.NewTicker(lightPause)
		defer ticker.Stop()
		for time.Since(began) < lightTime {
			for _, args := range [][]string{
				{"get", "configmap", "light-7", "-o", "yaml"},
				{"get", "configmaps", "-A", "-o", "json"},
				{"patch", "configmap", "light-7", "-p", fmt.Sprintf(`{"data":{"round":"%d"}}`, round)},
				{"describe", "service", "target"},
			} {
				out, err := k.Run(ctx, append([]string{"-n", "default"}, args...)...)
				must(t, err)
				if len(out) == 0 {
					t.Fatalf("kubectl %v printed nothing", args)
				}
				commands++
				<-ticker.C // the time in which nobody does anything is measured too
			}
			watch.await(t, strconv.Itoa(round))
			round++
		}
		took := time.Since(began)
		used := cpuTime(t, h.process) - before
		m, err := h.process.Memory()
		must(t, err)
		load := used.Seconds() / took.Seconds()
		t.Logf("%d commands of kubectl in %v: at most %d KiB resident, now %d KiB, %v of CPU time, which is %.4f of a CPU",
			commands, took.Round(time.Millisecond), m.Peak>>10, m.Resident>>10, used, load)
		if m.Peak > lightMemory {
			t.Errorf("the hub held %d KiB, the limit is %d", m.Peak>>10, lightMemory>>10)
		}
		if load > lightCPU {
			t.Errorf("the hub used %.3f of a CPU, the limit is %.1f", load, lightCPU)
		}
	})
}

// lightManifest is a list of ConfigMaps of some size.
func lightManifest() string {
	var b strings.Builder
	value := strings.Repeat("0123456789abcdef", lightValue/16)
	for i := range lightObjects {
		fmt.Fprintf(&b, "---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: light-%d, namespace: default}, data: {value: %s}}\n", i, value)
	}
	return b.String()
}

// watch is a kubectl that watches.
type watch struct {
	lines chan string
}

// startWatch watches ConfigMaps until the test ends.
func startWatch(ctx context.Context, t *testing.T, k testbed.Kubectl) *watch {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	// By a list: a watch of an object by its name does not print its first event, and so may
	// miss a change.
	cmd := k.Command(ctx, "-n", "default", "get", "configmaps", "--field-selector=metadata.name=light-7", "--watch", "-o", `jsonpath={.data.round}{"\n"}`)
	out, err := cmd.StdoutPipe()
	must(t, err)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	must(t, k.Namespace.Start(cmd))
	w := &watch{lines: make(chan string, 64)}
	ended := make(chan struct{})
	go w.read(ctx, out, ended)
	t.Cleanup(func() {
		cancel()
		<-ended
		if err := cmd.Wait(); err != nil && !errors.As(err, new(*exec.ExitError)) && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if complaint.Len() > 0 {
			t.Errorf("the watch: %s", &complaint)
		}
	})
	return w
}

// read passes lines on until the watch ends or nobody wants them any more.
func (w *watch) read(ctx context.Context, out io.Reader, ended chan<- struct{}) {
	defer close(ended)
	scanner := bufio.NewScanner(out)
	for scanner.Scan() {
		select {
		case w.lines <- scanner.Text():
		case <-ctx.Done():
			return
		}
	}
}

// await waits for a line.
func (w *watch) await(t *testing.T, want string) {
	t.Helper()
	late := time.NewTimer(30 * time.Second)
	defer late.Stop()
	for {
		select {
		case line := <-w.lines:
			if line == want {
				return
			}
		case <-late.C:
			t.Fatalf("the watch does not show round %s", want)
		}
	}
}

// clockTick is the unit of times in /proc (USER_HZ, the same on every Linux that
// Go runs on).
const clockTick = 10 * time.Millisecond

// cpuTime is what a process has used so far, in user and kernel mode
// (proc_pid_stat(5)).
func cpuTime(t *testing.T, p *testbed.Process) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID()))
	must(t, err)
	// The name in parentheses may hold anything; fields are counted behind it.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		t.Fatalf("/proc/%d/stat has %d fields behind the name", p.PID(), len(fields))
	}
	var total time.Duration
	for _, field := range fields[11:13] { // utime, stime
		ticks, err := strconv.ParseInt(string(field), 10, 64)
		must(t, err)
		total += time.Duration(ticks) * clockTick
	}
	return total
}
