package kubectl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// stream is kubectl's protocol of exec, attach, cp and port-forward.
type stream string

const (
	webSocket stream = "WebSocket"
	spdy      stream = "SPDY"
)

// version is one of HTTP.
type version string

const (
	http1 version = "HTTP/1.1"
	http2 version = "HTTP/2"
)

// client is kubectl by one way, with one choice of protocols. It is used by one
// goroutine.
type client struct {
	w      *world
	way    access
	stream stream
	http   version
	// id is a name that no other client has, for objects and files.
	id string
}

// command returns a kubectl that is not started. It logs which protocols it speaks.
func (c *client) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := c.kubectl().Command(ctx, c.arguments(args)...)
	cmd.Env = append(cmd.Env, c.environment()...)
	return cmd
}

func (c *client) kubectl() testbed.Kubectl {
	k := c.w.managed.KubectlAs(c.way.kubeconfig)
	k.Hosts = c.w.hosts
	return k
}

func (c *client) arguments(args []string) []string {
	return slices.Concat([]string{"-v=4", "-n", namespace}, args)
}

// environment chooses the protocols: the first two are kubectl's
// (k8s.io/kubectl/pkg/cmd/util), the third is client-go's
// (k8s.io/apimachinery/pkg/util/net). The last one is Go's, and makes HTTP/2 report
// itself.
func (c *client) environment() []string {
	web := fmt.Sprint(c.stream == webSocket)
	env := []string{"KUBECTL_REMOTE_COMMAND_WEBSOCKETS=" + web, "KUBECTL_PORT_FORWARD_WEBSOCKETS=" + web, "GODEBUG=http2debug=1"}
	if c.http == http1 {
		env = append(env, "DISABLE_HTTP2=1")
	}
	return env
}

// run runs kubectl to its end and holds its log against the protocols that were
// chosen.
func (c *client) run(ctx context.Context, stdin string, args ...string) (stdout string, err error) {
	cmd := c.command(ctx, args...)
	var out, problems bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &problems
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, withoutFrames(problems.String()))
	}
	return out.String(), c.spoke(problems.String(), isUpgrade(args[0]))
}

// isUpgrade tells the commands that leave HTTP.
func isUpgrade(command string) bool {
	return slices.Contains([]string{"exec", "attach", "cp", "port-forward"}, command)
}

// What client-go logs (tools/remotecommand/websocket.go,
// tools/portforward/tunneling_dialer.go and the fallbacks beside them), and Go's
// HTTP/2.
var (
	spokeWebSocket = []string{"The subprotocol is v5.channel.k8s.io", "Before WebSocket Upgrade Connection..."}
	spokeFallback  = []string{"RemoteCommand fallback:", "fallback to secondary dialer"}
	spokeHTTP2     = []string{"http2: Transport"}
)

// spoke holds the log of a kubectl against the protocols that were chosen.
func (c *client) spoke(log string, upgrade bool) error {
	has := func(marks []string) bool {
		return slices.ContainsFunc(marks, func(mark string) bool { return strings.Contains(log, mark) })
	}
	var errs []error
	if has(spokeFallback) {
		errs = append(errs, errors.New("kubectl fell back from WebSocket to SPDY"))
	}
	if want := upgrade && c.stream == webSocket; has(spokeWebSocket) != want {
		errs = append(errs, fmt.Errorf("WebSocket was used: %v, want %v", !want, want))
	}
	if want := c.http == http2; has(spokeHTTP2) != want {
		errs = append(errs, fmt.Errorf("HTTP/2 was used: %v, want %v", !want, want))
	}
	if len(errs) > 0 {
		errs = append(errs, errors.New(withoutFrames(log)))
	}
	return errors.Join(errs...)
}

// withoutFrames is a log of kubectl without what HTTP/2 reports of each frame.
func withoutFrames(log string) string {
	var b strings.Builder
	for line := range strings.Lines(log) {
		if !strings.Contains(line, "http2: ") && !strings.Contains(line, "Feature gate") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// session is a kubectl that runs.
type session struct {
	c      *client
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    io.ReadCloser
	stderr *syncBuffer
}

// start starts kubectl. The caller ends it.
func (c *client) start(ctx context.Context, args ...string) (*session, error) {
	s := &session{c: c, cmd: c.command(ctx, args...), stderr: newSyncBuffer()}
	var err, outErr error
	s.in, err = s.cmd.StdinPipe()
	s.out, outErr = s.cmd.StdoutPipe()
	s.cmd.Stderr = s.stderr
	return s, errors.Join(err, outErr, s.cmd.Start())
}

// failed ends kubectl after an error, and adds its log.
func (s *session) failed(err error) error {
	_ = s.cmd.Process.Kill() // or it has ended, or its context
	return fmt.Errorf("%w: kubectl: %w: %s", err, s.cmd.Wait(), withoutFrames(s.stderr.String()))
}

// kill ends kubectl, and holds its log against the protocols.
func (s *session) kill(upgrade bool) error {
	err := s.cmd.Process.Kill()
	_ = s.cmd.Wait() // it was killed
	return errors.Join(err, s.c.spoke(s.stderr.String(), upgrade))
}
