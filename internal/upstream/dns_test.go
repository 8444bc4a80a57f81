package upstream_test

import (
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// nameServer is a DNS server on loopback. A name has one list of addresses for
// each time that it is asked for, the last one for ever. Names without any do not
// exist.
type nameServer struct {
	conn net.PacketConn
	done chan struct{}

	mu      sync.Mutex
	answers map[string][][]netip.Addr // guarded by mu
	aliases map[string]string         // guarded by mu
	asked   map[string]int            // guarded by mu; for IPv4 addresses and ports
	ports   map[string]uint16         // guarded by mu
}

func newNameServer(t *testing.T) *nameServer {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	ok(t, err)
	s := &nameServer{conn: conn, done: make(chan struct{}), answers: map[string][][]netip.Addr{}, aliases: map[string]string{}, asked: map[string]int{}, ports: map[string]uint16{}}
	go s.serve()
	t.Cleanup(func() {
		conn.Close()
		<-s.done
	})
	return s
}

func (s *nameServer) addr() string { return s.conn.LocalAddr().String() }

// set makes name have the addresses, in the order of its being asked for.
func (s *nameServer) set(name string, answers ...[]netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers[name+"."], s.asked[name+"."] = answers, 0
}

func (s *nameServer) alias(name, to string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.aliases[name+"."] = to + "."
}

// port gives a service's port a name.
func (s *nameServer) port(name, service string, number uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ports["_"+name+"._tcp."+service+"."] = number
}

// times tells how often name was asked for.
func (s *nameServer) times(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[name+"."]
}

// serve ends when the socket is closed.
func (s *nameServer) serve() {
	defer close(s.done)
	buf := make([]byte, 1500)
	for {
		n, from, err := s.conn.ReadFrom(buf)
		if err != nil {
			return
		}
		reply, err := s.answer(buf[:n])
		if err == nil {
			_, err = s.conn.WriteTo(reply, from)
		}
		if err != nil {
			return
		}
	}
}

func (s *nameServer) answer(query []byte) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	q := m.Questions[0]
	m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
	header := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1}
	name := strings.ToLower(q.Name.String())
	if to, ok := s.aliases[name]; ok {
		header.Type = dnsmessage.TypeCNAME
		m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName(to)}})
		header.Type, header.Name, name = q.Type, dnsmessage.MustNewName(to), to
	}
	if number, ok := s.ports[name]; ok && q.Type == dnsmessage.TypeSRV {
		s.asked[name]++
		m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.SRVResource{Port: number, Target: q.Name}})
		return m.Pack()
	}
	answers, found := s.answers[name]
	if !found {
		m.RCode = dnsmessage.RCodeNameError
		return m.Pack()
	}
	// IPv4 and IPv6 are asked for together, in any order.
	round := s.asked[name]
	if q.Type == dnsmessage.TypeA {
		s.asked[name]++
	}
	for _, a := range answers[min(round, len(answers)-1)] {
		switch {
		case a.Is4() && q.Type == dnsmessage.TypeA:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AResource{A: a.As4()}})
		case !a.Is4() && q.Type == dnsmessage.TypeAAAA:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
		}
	}
	return m.Pack()
}

func addresses(list ...string) []netip.Addr {
	all := make([]netip.Addr, len(list))
	for i, a := range list {
		all[i] = netip.MustParseAddr(a)
	}
	return all
}
