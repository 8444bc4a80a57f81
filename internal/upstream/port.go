package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/wire"
)

const (
	// portTTL is how long the number of a port that DNS gave is used again. It is
	// the time that CoreDNS gives for records of the cluster by default.
	portTTL = 5 * time.Second
	// maxPorts bounds how many are remembered.
	maxPorts = 1024
)

// ports remembers the numbers of services' ports, which are needed for each
// request. It is safe for concurrent use.
type ports struct {
	mu    sync.Mutex
	known map[wire.Target]knownPort // guarded by mu
}

type knownPort struct {
	number uint16
	until  time.Time
}

func newPorts() *ports { return &ports{known: map[wire.Target]knownPort{}} }

func (p *ports) get(t wire.Target) (uint16, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	known, ok := p.known[t]
	return known.number, ok && time.Now().Before(known.until)
}

func (p *ports) put(t wire.Target, number uint16) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.known) >= maxPorts {
		clear(p.known)
	}
	p.known[t] = knownPort{number: number, until: time.Now().Add(portTTL)}
}

// port returns the number of the target's port. It takes at most the time of one
// connection attempt.
func (s *services) port(ctx context.Context, target wire.Target) (uint16, error) {
	if isNumber(target.Port) {
		return portNumber(target.Port)
	}
	if number, ok := s.ports.get(target); ok {
		return number, nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.dialer.timeout)
	defer cancel()
	number, err := s.lookupPort(ctx, target)
	if err != nil {
		return 0, err
	}
	s.ports.put(target, number)
	return number, nil
}

// lookupPort asks DNS. A named port has an SRV record _<port>._tcp.<service>
// (Kubernetes DNS specification, section 2.3.2). Without a port, the service's own
// name gives the records of all its ports in CoreDNS; where that is not exactly
// one number, the scheme decides.
func (s *services) lookupPort(ctx context.Context, target wire.Target) (uint16, error) {
	if target.Port == "" {
		_, records, err := s.dialer.resolver.LookupSRV(ctx, "", "", s.name(target))
		if err == nil && onePort(records) {
			return records[0].Port, nil
		}
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		return portNumber(defaultPort(target.Scheme))
	}
	_, records, err := s.dialer.resolver.LookupSRV(ctx, target.Port, "tcp", s.name(target))
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns) && dns.IsNotFound || err == nil && (len(records) == 0 || records[0].Port == 0):
		return 0, &fault.Error{Hop: wire.HopAgent, Op: "resolve", Code: wire.CodeNotFound,
			Err: fmt.Errorf("the cluster's DNS knows no port named %q of this service", target.Port)}
	case err != nil:
		return 0, err
	default:
		return records[0].Port, nil
	}
}

// onePort tells whether all records give the same port, and one that exists.
func onePort(records []*net.SRV) bool {
	for _, record := range records {
		if record.Port != records[0].Port {
			return false
		}
	}
	return len(records) > 0 && records[0].Port != 0
}
