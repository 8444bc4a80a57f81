package server

import (
	"context"
	"crypto/tls"

	"github.com/culvertdev/culvert/internal/front/clients"
	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/tunnel/acceptor"
	"github.com/culvertdev/culvert/internal/version"
	"github.com/culvertdev/culvert/internal/wire"
)

// maxProgramSessions bounds the sessions of one client's link.
const maxProgramSessions = 16 << 10

// programs are clients that speak the tunnel's frames, as package client does.
type programs struct {
	front *clients.Front
	links *acceptor.Clients
}

func (s *Server) newPrograms(budget *mux.Budget) (*programs, error) {
	f, err := clients.New(clients.Config{
		Sessions: sessions{s}, Identify: s.identity.Identify, Observer: s.observer, Logger: s.log,
	})
	if err != nil {
		return nil, err
	}
	return &programs{front: f, links: acceptor.NewClients(acceptor.ClientsConfig{
		Admit: f.Admit, Handle: f.Handle,
		Mux: mux.Config{
			Hello: wire.Hello{Version: version.String()}, Budget: budget, OpenTimeout: 2 * DefaultOpenTimeout,
			MaxSessions: maxProgramSessions, MaxPending: maxProgramSessions / 4,
		},
		Metrics: s.observer.Metrics, Logger: s.log,
	})}, nil
}

// leave tells the clients that the hub is going, and closes what it returns when all
// their sessions have ended or ctx has.
func (p *programs) leave(ctx context.Context) <-chan struct{} {
	left := make(chan struct{})
	go func() {
		defer close(left)
		_ = p.links.Shutdown(ctx, wire.CodeDraining, "the hub is stopping") // what was cut shows in the tunnels of agents, which log it
	}()
	return left
}

// carriedTLS returns the TLS state of requests on a connection that carries HTTP without
// net/http seeing its TLS, or nil.
func carriedTLS(conn any) *tls.ConnectionState {
	switch c := conn.(type) {
	case *eitherConn:
		return c.state
	case *clients.Conn:
		return c.TLS()
	}
	return nil
}
