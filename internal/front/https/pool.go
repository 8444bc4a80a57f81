package https

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/wire"
)

const (
	// maxIdleSessions bounds the idle sessions of one cluster and target.
	maxIdleSessions = 256
	// idleSession is how long a session stays in the pool. The agent keeps
	// one much longer, so that it never closes one that is being taken.
	idleSession = 90 * time.Second
	// continueTimeout is how long a body that asked for 100 Continue waits.
	// It covers an agent's time to connect and the agent's own wait for the
	// target, after which the agent says 100 itself.
	continueTimeout = 15 * time.Second
	// sessionBuffer is the transport's read and write buffer a session, in
	// bytes: a compromise between the size of frames and of idle sessions.
	sessionBuffer = 16 << 10
	// maxAnswerHeader bounds the head of an answer, in bytes.
	maxAnswerHeader = 1 << 20
)

// newTransport returns the pool of sessions. Its connections are plain HTTP/1.1
// inside of what dial opens.
func newTransport(dial func(context.Context, string, wire.Target) (net.Conn, error)) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Transport{
		DialContext:            poolDialer(dial).dial,
		Protocols:              protocols,
		DisableCompression:     true,
		MaxIdleConnsPerHost:    maxIdleSessions,
		IdleConnTimeout:        idleSession,
		ExpectContinueTimeout:  continueTimeout,
		MaxResponseHeaderBytes: maxAnswerHeader,
		WriteBufferSize:        sessionBuffer,
		ReadBufferSize:         sessionBuffer,
	}
}

type poolDialer func(ctx context.Context, cluster string, target wire.Target) (net.Conn, error)

func (d poolDialer) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	agent, cluster, target, err := parsePoolKey(addr)
	if err != nil {
		return nil, &fault.Error{Hop: wire.HopHub, Op: "dial", Code: wire.CodeInternal, Err: err}
	}
	if agent != 0 {
		ctx = context.WithValue(ctx, agentKeyType{}, agent)
	}
	return d(ctx, cluster, target)
}

type agentKeyType struct{}

// ChosenAgent returns the agent that [Config.Choose] named for the request that a
// session is dialled for, or 0.
func ChosenAgent(ctx context.Context) uint64 {
	agent, _ := ctx.Value(agentKeyType{}).(uint64)
	return agent
}

// agentKey makes of a pool key the one of a single agent: "7_agent.edge-1.kubernetes".
func agentKey(agent uint64, key string) string {
	return strconv.FormatUint(agent, 10) + agentSuffix + key
}

// agentSuffix has what no name of a cluster has.
const agentSuffix = "_agent."

// noPort stands for an empty port in a pool key: it is no DNS label.
const noPort = "-"

// poolKey returns the host under which the transport pools sessions. No two
// destinations share one, since the parts are DNS labels, which have no dots:
//
//	edge-1.kubernetes
//	https.8443.web.default.edge-1.service
//
// The target must be one that package route gave.
func poolKey(cluster string, target wire.Target) string {
	if target.Kind == wire.TargetKubernetesAPI {
		return cluster + ".kubernetes"
	}
	port := target.Port
	if port == "" {
		port = noPort
	}
	return strings.Join([]string{target.Scheme, port, target.Name, target.Namespace, cluster, "service"}, ".")
}

// parsePoolKey is the reverse of poolKey for the address that the transport
// makes of it by adding ":80".
func parsePoolKey(addr string) (agent uint64, cluster string, target wire.Target, err error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return 0, "", wire.Target{}, fmt.Errorf("pool key: %w", err)
	}
	if number, rest, ok := strings.Cut(host, agentSuffix); ok && !strings.Contains(number, ".") {
		if agent, err = strconv.ParseUint(number, 10, 64); err != nil {
			return 0, "", wire.Target{}, fmt.Errorf("pool key: %w", err)
		}
		host = rest
	}
	parts := strings.Split(host, ".")
	switch {
	case len(parts) == 2 && parts[1] == "kubernetes":
		return agent, parts[0], wire.KubernetesAPI(), nil
	case len(parts) == 6 && parts[5] == "service":
		port := parts[1]
		if port == noPort {
			port = ""
		}
		return agent, parts[4], wire.Service(parts[3], parts[2], port, parts[0]), nil
	default:
		return 0, "", wire.Target{}, fmt.Errorf("pool key: %q", host)
	}
}
