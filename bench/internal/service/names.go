package service

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/net/dns/dnsmessage"
)

// ServeNames answers every A question with address and every other one with
// nothing, until ctx ends; it closes conn.
func ServeNames(ctx context.Context, conn net.PacketConn, address netip.Addr) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	buf := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			if ctx.Err() != nil {
				return nil // told to end, the error is the consequence
			}
			return fmt.Errorf("name server: %w", err)
		}
		if reply, err := answer(buf[:n], address); err == nil { // nothing to say to what is no question
			_, _ = conn.WriteTo(reply, from) // whoever asked asks again
		}
	}
}

func answer(query []byte, address netip.Addr) ([]byte, error) {
	var p dnsmessage.Parser
	head, err := p.Start(query)
	if err != nil {
		return nil, fmt.Errorf("question: %w", err)
	}
	q, err := p.Question()
	if err != nil {
		return nil, fmt.Errorf("question: %w", err)
	}
	m := dnsmessage.Message{
		Header: dnsmessage.Header{
			ID: head.ID, Response: true, Authoritative: true,
			RecursionDesired: head.RecursionDesired, RecursionAvailable: true,
		},
		Questions: []dnsmessage.Question{q},
	}
	if q.Type == dnsmessage.TypeA {
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 3600},
			Body:   &dnsmessage.AResource{A: address.As4()},
		}}
	}
	return m.Pack()
}
