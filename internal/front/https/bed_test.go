package https_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/rest"

	"github.com/culvertdev/culvert/internal/audit"
	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/front/https"
	"github.com/culvertdev/culvert/internal/identity"
	"github.com/culvertdev/culvert/internal/limit"
	"github.com/culvertdev/culvert/internal/policy"
	"github.com/culvertdev/culvert/internal/telemetry"
	"github.com/culvertdev/culvert/internal/upstream"
	"github.com/culvertdev/culvert/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	hubToken   = "hub-token"
	agentToken = "agent-token"
	patience   = 20 * time.Second
)

// bed is a hub's front end and an agent, with a TCP connection a session.
type bed struct {
	t     *testing.T
	ca    *authority
	addr  string
	dns   *dnsServer
	front *https.Handler
	agent *upstream.Upstream
	log   *logBuffer

	mu       sync.Mutex
	sessions []net.Conn // the hub's ends
	dialErr  error
}

// logBuffer is where the hub and the agent log to.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

type bedConfig struct {
	kube     http.Handler
	kubeHost string // instead of kube
	auth     func(*http.Request) (user.Info, error)
	identify func(*http.Request, string) (identity.Caller, error)
	policy   policy.Authorizer
	labels   func(string) (map[string]string, error)
	limits   *limit.Limits
	audit    *audit.Log
	// passThrough is the agent's part of it.
	passThrough bool
	ready       func() error
	health      func() []telemetry.Health
	admin       func(http.ResponseWriter, *http.Request, user.Info) error
	protos      []string
}

func newBed(t *testing.T, cfg bedConfig) *bed {
	t.Helper()
	b := &bed{t: t, ca: newAuthority(t), dns: newDNS(t), log: &logBuffer{}}
	log := slog.New(slog.NewTextHandler(b.log, nil))

	if cfg.kube != nil {
		l := listen(t)
		protos := cfg.protos
		if protos == nil {
			protos = []string{"h2", "http/1.1"}
		}
		serveHTTP(t, l, b.ca.config(protos), cfg.kube)
		cfg.kubeHost = "https://" + l.Addr().String()
	}
	serviceCA := filepath.Join(t.TempDir(), "ca.crt")
	ok(t, os.WriteFile(serviceCA, b.ca.pem, 0o600))
	agentConfig := upstream.Config{
		ServiceCA: serviceCA,
		Services:  []upstream.ServiceRule{{Namespace: "default", Name: "*"}}, SpecialAddresses: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, DNSServer: b.dns.addr, PassThrough: cfg.passThrough, Logger: log.With("process", "agent"),
	}
	if cfg.kubeHost != "" {
		agentConfig.Kubernetes = &rest.Config{Host: cfg.kubeHost, BearerToken: agentToken, TLSClientConfig: rest.TLSClientConfig{CAData: b.ca.pem}}
	}
	var err error
	b.agent, err = upstream.New(agentConfig)
	ok(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := b.agent.Close(ctx); err != nil {
			t.Errorf("close agent: %v", err)
		}
	})

	mapper, err := identity.NewMapper(identity.Config{})
	ok(t, err)
	if cfg.auth == nil {
		cfg.auth = authenticate
	}
	if cfg.identify == nil {
		cfg.identify = identifiedBy(cfg.auth)
	}
	if cfg.policy == nil {
		cfg.policy = rules(t, "rules: [{name: services, effect: allow, services: [{namespace: \"*\", name: \"*\"}]}]")
	}
	b.front, err = https.New(https.Config{
		Dial: b.dial, Identify: cfg.identify, Map: mapper.Map, Logger: log.With("process", "hub"), CA: func() []byte { return b.ca.pem }, Ready: cfg.ready,
		Health: cfg.health, Admin: cfg.admin, Policy: cfg.policy, Labels: cfg.labels, Limits: cfg.limits, Audit: cfg.audit,
	})
	ok(t, err)
	server := b.front.Server()
	l := listen(t)
	b.addr = l.Addr().String()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Serve(tls.NewListener(l, b.ca.config([]string{"h2", "http/1.1"}))); !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("hub: %v", err)
		}
	}()
	t.Cleanup(func() {
		server.Close()
		b.front.Close()
		<-done
		b.cutSessions()
	})
	return b
}

// rules is a policy of the text's default and rules.
func rules(t *testing.T, text string) *policy.Policy {
	t.Helper()
	p, err := policy.Parse([]byte("apiVersion: policy.culvert.dev/v1\nkind: Policy\n"+text+"\n"), policy.Options{})
	ok(t, err)
	return p
}

func identifiedBy(auth func(*http.Request) (user.Info, error)) func(*http.Request, string) (identity.Caller, error) {
	return func(r *http.Request, _ string) (identity.Caller, error) {
		who, err := auth(r)
		return identity.Caller{User: who, Method: identity.MethodStaticToken}, err
	}
}

// authenticate knows one token, as a chain of authenticators would.
func authenticate(r *http.Request) (user.Info, error) {
	if r.Header.Get("Authorization") != "Bearer "+hubToken {
		return nil, &fault.Error{Hop: wire.HopHub, Op: "authenticate", Code: wire.CodeUnauthenticated, Err: errors.New("wrong token")}
	}
	r.Header.Del("Authorization")
	return &user.DefaultInfo{Name: "alice", Groups: []string{"dev"}}, nil
}

// dial is the tunnel of this bed.
func (b *bed) dial(ctx context.Context, cluster string, target wire.Target) (net.Conn, error) {
	b.mu.Lock()
	err := b.dialErr
	b.mu.Unlock()
	if err == nil && cluster != "edge-1" {
		err = &fault.Error{Hop: wire.HopHub, Op: "dial", Code: wire.CodeNotFound, Cluster: cluster, Err: errors.New("no such cluster")}
	}
	if err == nil {
		err = b.agent.Check(target)
	}
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer l.Close()
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return nil, err
	}
	far, err := l.Accept()
	if err != nil {
		near.Close()
		return nil, err
	}
	b.agent.Serve(far, target)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sessions = append(b.sessions, near)
	return &named{near.(*net.TCPConn), fmt.Sprintf("agent-%d", len(b.sessions))}, nil
}

// named is a session that says which agent has it: here each has one of its own.
type named struct {
	*net.TCPConn
	name string
}

func (n *named) Agent() string { return n.name }

func (b *bed) dialled() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.sessions)
}

// cutSessions is the loss of the cluster's link.
func (b *bed) cutSessions() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, conn := range b.sessions {
		conn.Close()
	}
}

func (b *bed) refuseDials(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dialErr = err
}

// client returns an HTTP client of the hub with the hub's token.
func (b *bed) client(http2 bool) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!http2)
	protocols.SetHTTP2(http2)
	transport := &http.Transport{Protocols: protocols, DisableCompression: true, TLSClientConfig: &tls.Config{RootCAs: b.ca.pool}, ExpectContinueTimeout: patience}
	b.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func (b *bed) request(method, path string, body io.Reader) *http.Request {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	b.t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, method, "https://"+b.addr+path, body)
	ok(b.t, err)
	r.Header.Set("Authorization", "Bearer "+hubToken)
	return r
}

func (b *bed) get(client *http.Client, path string) (*http.Response, string) {
	b.t.Helper()
	res, err := client.Do(b.request(http.MethodGet, path, nil))
	ok(b.t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	ok(b.t, err)
	return res, string(body)
}

// raw opens a TLS connection to the hub that speaks whatever the test writes.
func (b *bed) raw() *tls.Conn {
	b.t.Helper()
	conn, err := tls.Dial("tcp", b.addr, &tls.Config{RootCAs: b.ca.pool, NextProtos: []string{"http/1.1"}})
	ok(b.t, err)
	ok(b.t, conn.SetDeadline(time.Now().Add(patience)))
	b.t.Cleanup(func() { conn.Close() })
	return conn
}

// head returns an HTTP/1.1 request head with the hub's token.
func head(line string, headers ...string) string {
	all := append([]string{line + " HTTP/1.1", "Host: hub", "Authorization: Bearer " + hubToken}, headers...)
	return strings.Join(all, "\r\n") + "\r\n\r\n"
}

func readResponse(t *testing.T, r *bufio.Reader) *http.Response {
	t.Helper()
	res, err := http.ReadResponse(r, &http.Request{Method: http.MethodGet})
	ok(t, err)
	return res
}

// rawTarget is a service that speaks plain bytes: each connection is handed to
// serve with what came up to the end of its request's head.
func (b *bed) rawTarget(serve func(head string, conn *net.TCPConn, r *bufio.Reader)) (port string) {
	b.t.Helper()
	l := listen(b.t)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				r := bufio.NewReader(conn)
				var head strings.Builder
				for {
					line, err := r.ReadString('\n')
					if err != nil {
						return
					}
					head.WriteString(line)
					if line == "\r\n" {
						break
					}
				}
				serve(head.String(), conn.(*net.TCPConn), r)
			})
		}
	})
	b.t.Cleanup(func() {
		l.Close()
		b.cutSessions()
		wg.Wait()
	})
	return portOf(l)
}

func portOf(l net.Listener) string { return strconv.Itoa(l.Addr().(*net.TCPAddr).Port) }

// service returns the path of a service of the bed's cluster.
func service(spec, path string) string {
	return "/edge-1/api/v1/namespaces/default/services/" + spec + "/proxy-service" + path
}
