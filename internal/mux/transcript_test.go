package mux

import (
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/mem"

	"github.com/culvertdev/culvert/internal/buffer"
	"github.com/culvertdev/culvert/internal/wire"
)

var update = flag.Bool("update", false, "write what the link does into the transcripts")

// TestTranscripts plays every scenario of testdata/transcripts against a link
// without I/O and compares what it says. A scenario is prose after "#", a
// command, "----", and what follows from it; commands are described at play.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/transcripts/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var got string
			synctest.Test(t, func(t *testing.T) { got = playFile(t, string(raw)) })
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(raw) {
				t.Errorf("%s: run with -update and read the difference\n%s", file, diff(string(raw), got))
			}
		})
	}
}

func diff(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(w), len(g)) {
		var a, b string
		if i < len(w) {
			a = w[i]
		}
		if i < len(g) {
			b = g[i]
		}
		if a != b {
			return fmt.Sprintf("line %d\n want: %s\n  got: %s", i+1, a, b)
		}
	}
	return ""
}

// nowhere is the transport of a link that is driven by hand.
type nowhere struct{}

func (nowhere) Send(b *wire.Batch) error  { b.Free(); return nil }
func (nowhere) Recv(*wire.Received) error { return io.EOF }
func (nowhere) Close(bool)                {}

type player struct {
	t        *testing.T
	l        *Link
	sessions map[string]*Session
	incoming chan *Incoming
	waiting  map[string]*Incoming
	decide   map[string]chan struct{}
	out      []string
	done     chan string
	cancel   map[string]context.CancelFunc
	status   *wire.Status // this side's
}

func playFile(t *testing.T, text string) string {
	p := &player{
		t: t, sessions: map[string]*Session{}, incoming: make(chan *Incoming, 16),
		waiting: map[string]*Incoming{}, decide: map[string]chan struct{}{},
		done: make(chan string, 64), cancel: map[string]context.CancelFunc{},
	}
	var b strings.Builder
	skip := false
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		switch {
		case line == "----":
			skip = true
		case line == "":
			if skip {
				b.WriteString("\n")
			}
			skip = false
		case strings.HasPrefix(line, "#"):
			b.WriteString(line + "\n")
			skip = false
		case !skip:
			p.out = nil
			for command := range strings.SplitSeq(line, ";") {
				p.play(strings.Fields(command))
			}
			p.flush()
			b.WriteString(line + "\n----\n" + strings.Join(append(p.out, ""), "\n"))
			skip = true
		}
	}
	p.finish()
	return strings.TrimRight(b.String(), "\n") + "\n"
}

// finish ends the link and checks that nothing is left of it.
func (p *player) finish() {
	p.l.fail(&Error{Code: wire.CodeLinkLost, Message: "end of the transcript"})
	for _, d := range p.decide {
		close(d)
	}
	for _, s := range p.sessions {
		_ = s.Close() // some were closed by the transcript
		s.readMu.Lock()
		s.dropCurrent()
		s.readMu.Unlock()
	}
	synctest.Wait()
	p.l.handlers.Wait()
	if used := p.l.cfg.Budget.Used(); used != 0 {
		p.t.Errorf("%d bytes of the budget are committed after every session was closed", used)
	}
	if n := len(p.l.sessions) + p.l.ownOpen + p.l.peerOpen + p.l.pending; n != 0 {
		p.t.Errorf("the link still counts sessions: %d in the table, %d own, %d of the peer, %d undecided",
			len(p.l.sessions), p.l.ownOpen, p.l.peerOpen, p.l.pending)
	}
}

// play runs one command: what the application does ("open", "write", "read",
// "accept", …), what the peer sends ("peer FRAME …", "bytes HEX"), or time
// ("advance", "tick"). A line may have several, separated by ";"; only after the
// last one the link sends.
func (p *player) play(f []string) {
	arg := func(key, def string) string {
		for _, a := range f[1:] {
			if v, ok := strings.CutPrefix(a, key+"="); ok {
				return v
			}
		}
		return def
	}
	num := func(key string, def int) int {
		n, err := strconv.Atoi(arg(key, strconv.Itoa(def)))
		if err != nil {
			p.t.Fatalf("%s: %v", key, err)
		}
		return n
	}
	switch f[0] {
	case "link":
		p.l = newLink(Config{
			Dialler:       f[1] == "dialler",
			Hop:           wire.HopHub,
			Hello:         wire.Hello{Version: "test"},
			InitialWindow: num("window", 1000), MinWindow: num("min", 100), MaxWindow: num("max", 4000),
			SendBuffer: num("buffer", 4000), MaxSessions: num("sessions", 4), MaxPending: num("pending", 2),
			Budget: NewBudget(int64(num("budget", 1<<20))), OpenTimeout: 10 * time.Second,
			Handler: p.handle, Status: func() *wire.Status { return p.status },
		}.withDefaults())
		p.l.tr = nowhere{}
	case "peer":
		p.receive(p.parse(f[1:]))
	case "bytes":
		raw, err := hex.DecodeString(f[1])
		if err != nil {
			p.t.Fatal(err)
		}
		p.receiveBytes(raw)
	case "open":
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		p.cancel[f[1]] = cancel
		s, err := p.l.Start(ctx, Request{Target: wire.KubernetesAPI(), Payload: []byte(arg("first", ""))})
		if err != nil {
			p.sayf("%s: %v", f[1], err)
			break
		}
		p.sessions[f[1]] = s
		go func() { p.result(f[1]+": open", s.Wait(ctx)); cancel() }()
	case "cancel":
		p.cancel[f[1]]()
	case "accept":
		s, err := p.waiting[f[1]].Accept()
		p.result(f[1]+": accept", err)
		if err == nil {
			p.sessions[f[1]] = s
		}
	case "refuse":
		p.waiting[f[1]].Refuse(wire.CodeConnectionRefused, wire.HopTarget, "nobody listens")
	case "write":
		text := []byte(strings.Repeat("x", num("n", 0)) + arg("text", ""))
		s := p.sessions[f[1]]
		go func() { n, err := s.Write(text); p.result(fmt.Sprintf("%s: wrote %d", f[1], n), err) }()
	case "read":
		s, buf := p.sessions[f[1]], make([]byte, num("n", 4096))
		go func() {
			n, err := io.ReadAtLeast(s, buf, min(num("n", 1), len(buf)))
			p.result(fmt.Sprintf("%s: read %s", f[1], show(buf[:n])), err)
		}()
	case "closewrite":
		p.result(f[1]+": closewrite", p.sessions[f[1]].CloseWrite())
	case "closeread":
		p.result(f[1]+": closeread", p.sessions[f[1]].CloseRead())
	case "close":
		p.result(f[1]+": close", p.sessions[f[1]].Close())
	case "reset":
		p.sessions[f[1]].Reset(wire.CodeConnectionReset, wire.HopTarget, "gone")
	case "fail":
		p.sessions[f[1]].Fail(wire.CodeConnectionReset, wire.HopTarget, "gone")
	case "drain":
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		go func() { p.result("drain", p.l.Drain(ctx, wire.CodeDraining, "restarting")); cancel() }()
	case "status": // this side's changes
		p.status = &wire.Status{Kubernetes: &wire.Readiness{Ready: f[1] == "ready", Code: wire.Code(num("code", 0)), Message: arg("message", "")}}
		p.l.StatusChanged()
	case "peerstatus":
		p.sayf("the peer: %s", readiness(p.l.PeerStatus()))
	case "advance":
		d, err := time.ParseDuration(f[1])
		if err != nil {
			p.t.Fatal(err)
		}
		time.Sleep(d)
	case "tick":
		if silence := p.l.keepalive(time.Now()); silence > 0 {
			p.sayf("the peer is silent for %v", silence)
		}
	default:
		p.t.Fatalf("unknown command %q", f)
	}
	synctest.Wait()
}

func (p *player) handle(ctx context.Context, in *Incoming) {
	name := fmt.Sprintf("s%d", in.s.id)
	decide := make(chan struct{})
	p.waiting[name], p.decide[name] = in, decide
	select {
	case <-decide:
	case <-ctx.Done():
		p.done <- fmt.Sprintf("%s: handler cancelled: %v", name, context.Cause(ctx))
	}
}

func (p *player) result(what string, err error) {
	if err != nil {
		what += ": " + err.Error()
	}
	p.done <- what
}

func (p *player) sayf(format string, args ...any) {
	p.out = append(p.out, fmt.Sprintf(format, args...))
}

// flush prints what finished and what the link sends, until nothing is left.
func (p *player) flush() {
	for {
		// What ended at the same time has no order of its own.
		var lines []string
		for len(p.done) > 0 {
			lines = append(lines, <-p.done)
		}
		slices.Sort(lines)
		p.out = append(p.out, lines...)
		var b wire.Batch
		p.l.mu.Lock()
		over, finished := p.l.err != nil, p.l.finished
		some := !over && p.l.fill(&b)
		p.l.mu.Unlock()
		if over {
			return
		}
		if !some {
			if finished {
				p.l.fail(errDrained)
				p.sayf("link ended: %v", p.l.err)
			}
			return
		}
		var r wire.Received
		out := b.Take()
		if err := r.Decode(out); err != nil {
			p.t.Fatal(err)
		}
		out.Free()
		for i := range r.Frames {
			p.sayf("-> %s", format(&r.Frames[i]))
		}
		r.Reset()
		synctest.Wait()
	}
}

func (p *player) receive(f wire.Frame) {
	p.l.mu.Lock()
	err := p.l.handle(&f, time.Now())
	p.l.mu.Unlock()
	f.Free()
	p.end(err)
}

func (p *player) receiveBytes(raw []byte) {
	var r wire.Received
	err := r.Decode(mem.BufferSlice{mem.SliceBuffer(raw)})
	for i := range r.Frames {
		p.receive(r.Frames[i])
	}
	p.end(err)
}

func (p *player) end(err error) {
	if err != nil {
		err = p.l.transportError(err)
		p.l.fail(err)
		p.sayf("link ended: %v", err)
	}
}

// parse reads a frame in the form that format prints.
func (p *player) parse(f []string) wire.Frame {
	out := wire.Frame{Hop: wire.HopTarget}
	for k := wire.KindHello; k <= wire.KindStatus; k++ {
		if k.String() == f[0] {
			out.Kind = k
		}
	}
	if out.Kind == wire.KindHello {
		out.Hello = &wire.Hello{Revision: 1, InitialWindow: 1000, MaxData: 1 << 16}
	}
	if out.Kind == wire.KindStatus {
		out.Status = &wire.Status{Kubernetes: &wire.Readiness{}}
	}
	if out.Kind == wire.KindOpen {
		out.Open = &wire.Open{Target: wire.KubernetesAPI(), Window: 1000}
	}
	for _, a := range f[1:] {
		key, val, ok := strings.Cut(a, "=")
		n, err := strconv.ParseUint(val, 0, 64)
		switch {
		case !ok:
			id, err := strconv.ParseUint(a, 10, 64)
			if err != nil {
				p.t.Fatal(err)
			}
			out.Session, out.Nonce = wire.SessionID(id), id
		case key == "text":
			out.Payload = buffer.Copy([]byte(val))
		case key == "message" && out.Status != nil:
			out.Status.Kubernetes.Message = val
		case key == "message":
			out.Message = val
		case err != nil:
			p.t.Fatal(err)
		case key == "n":
			out.Payload = buffer.Copy(make([]byte, n))
		case key == "offset":
			out.Offset = wire.Offset(n)
		case key == "code" && out.Status != nil:
			out.Status.Kubernetes.Code = wire.Code(n)
		case key == "ready":
			out.Status.Kubernetes.Ready = n != 0
		case key == "code":
			out.Code = wire.Code(n)
		case key == "last":
			out.LastSession = wire.SessionID(n)
		case key == "revision":
			out.Hello.Revision = uint32(n)
		case key == "sessions":
			out.Hello.MaxSessions = uint32(n)
		case key == "window" && out.Hello != nil:
			out.Hello.InitialWindow = n
		case key == "window":
			out.Open.Window = n
		case key == "timeout":
			out.Open.Timeout = time.Duration(n) * time.Millisecond
		default:
			p.t.Fatalf("unknown field %q", a)
		}
	}
	return out
}

func show(b []byte) string {
	if len(b) > 40 {
		return fmt.Sprintf("(%d bytes)", len(b))
	}
	return strconv.Quote(string(b))
}

func format(f *wire.Frame) string {
	s := f.Kind.String()
	switch f.Kind {
	case wire.KindHello:
		h := f.Hello
		return fmt.Sprintf("%s revision=%d window=%d max_data=%d sessions=%d", s, h.Revision, h.InitialWindow, h.MaxData, h.MaxSessions)
	case wire.KindPing, wire.KindPong:
		return fmt.Sprintf("%s %d", s, f.Nonce)
	case wire.KindOpen:
		s = fmt.Sprintf("%s %d %s window=%d timeout=%v", s, f.Session, f.Open.Target, f.Open.Window, f.Open.Timeout)
	case wire.KindGoAway:
		return fmt.Sprintf("%s %s %q last=%d deadline=%v", s, f.Code, f.Message, f.LastSession, f.Deadline)
	case wire.KindStatus:
		return s + " " + readiness(f.Status)
	case wire.KindRefused, wire.KindReset:
		return fmt.Sprintf("%s %d %s: %s: %q", s, f.Session, f.Hop, f.Code, f.Message)
	case wire.KindStop, wire.KindData:
		s = fmt.Sprintf("%s %d", s, f.Session)
	default:
		return fmt.Sprintf("%s %d offset=%d", s, f.Session, f.Offset)
	}
	if f.Payload != nil {
		s += " " + show(f.Payload.ReadOnlyData())
	}
	return s
}

func readiness(s *wire.Status) string {
	switch {
	case s == nil || s.Kubernetes == nil:
		return "kubernetes: nothing is said"
	case s.Kubernetes.Ready:
		return "kubernetes: ready"
	default:
		return fmt.Sprintf("kubernetes: %s: %q", s.Kubernetes.Code, s.Kubernetes.Message)
	}
}

func TestErrorsMatchWhatNetCallersExpect(t *testing.T) {
	var e error = &Error{Code: wire.CodeDeadlineExceeded}
	var timeout interface{ Timeout() bool }
	if !errors.As(e, &timeout) || !timeout.Timeout() {
		t.Error("a deadline at the peer must be a timeout")
	}
}
