package server

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/culvertdev/culvert/internal/enrol"
	"github.com/culvertdev/culvert/internal/front/admin"
	"github.com/culvertdev/culvert/internal/pki"
	"github.com/culvertdev/culvert/internal/route"
	"github.com/culvertdev/culvert/internal/store"
	"github.com/culvertdev/culvert/internal/wire"
)

const (
	// maxLabels bounds the labels of one token.
	maxLabels = 64
	// maxPins is how many CAs the text of a token holds.
	maxPins = 16
)

// CreateToken implements [admin.Hub].
func (a administration) CreateToken(_ context.Context, who string, want admin.TokenRequest) (admin.NewToken, error) {
	const op = "create token"
	invalid := func(err error) error { return refuse(op, wire.CodeInvalidTarget, "", "%w", err) }
	if err := checkCluster(op, want.Cluster); err != nil {
		return admin.NewToken{}, err
	}
	ttl, manual := a.s.tokenDefaults()
	switch {
	case want.TTL.Duration > 0:
		ttl = want.TTL.Duration
	case want.TTL.Duration < 0:
		return admin.NewToken{}, invalid(fmt.Errorf("ttl: %v is negative", want.TTL.Duration))
	}
	if ttl > MaxTokenTTL {
		return admin.NewToken{}, invalid(fmt.Errorf("ttl: %v, at most %v is allowed", ttl, MaxTokenTTL))
	}
	switch want.Approval {
	case "":
	case admin.ApprovalAuto, admin.ApprovalManual:
		manual = want.Approval == admin.ApprovalManual
	default:
		return admin.NewToken{}, invalid(fmt.Errorf("approval: %.32q is not auto or manual", want.Approval))
	}
	if err := checkLabels(want.Labels); err != nil || len(want.Labels) > maxLabels {
		if err == nil {
			err = fmt.Errorf("labels: %d, at most %d are allowed", len(want.Labels), maxLabels)
		}
		return admin.NewToken{}, invalid(err)
	}
	agents := a.s.trust.authorities[pki.RoleAgents]
	if !agents.CanSign() {
		return admin.NewToken{}, refuse(op, wire.CodePermissionDenied, "",
			"the hub has the certificate of the agents CA and not its key, so that it cannot enrol: have the CA's owner issue the agent's certificate")
	}
	text := enrol.Token{Hub: want.Hub, Cluster: want.Cluster}
	if text.Hub == "" {
		text.Hub = a.s.advertised()
	}
	address, err := route.ParseAddress(text.Hub)
	if err != nil {
		return admin.NewToken{}, invalid(fmt.Errorf("hub: want host:port: %w", err))
	}
	cas := a.s.trust.serving.authoritiesFor(address.Host)
	if len(cas) > maxPins {
		return admin.NewToken{}, refuse(op, wire.CodeInvalidTarget, "",
			"tls.ca: has %d certificates, and a token names at most %d: leave in it those that the hub's certificate is from", len(cas), maxPins)
	}
	for _, ca := range cas {
		text.Pins = append(text.Pins, pki.Pin(ca))
	}
	text.System = len(cas) == 0

	now := time.Now()
	made, secret, err := a.s.store.CreateToken(store.Token{
		Cluster: want.Cluster, Labels: want.Labels, Approval: manual, CreatedBy: who, Expires: now.Add(ttl),
	}, now)
	if err != nil {
		return admin.NewToken{}, err
	}
	text.ID, text.Secret = made.ID, secret
	word, err := text.Encode()
	if err != nil {
		return admin.NewToken{}, err
	}
	return admin.NewToken{
		Token: tokenOf(made, now), Text: word, Command: "culvert-agent join --token " + word,
		Hub: text.Hub, Warnings: a.s.tokenWarnings(address.Host),
	}, nil
}

// tokenDefaults is what the configuration says of tokens.
func (s *Server) tokenDefaults() (ttl time.Duration, manual bool) {
	ttl = DefaultTokenTTL
	if e := s.cfg.Enrolment; e != nil {
		if e.TokenTTL.Duration > 0 {
			ttl = e.TokenTTL.Duration
		}
		manual = e.Approval == admin.ApprovalManual
	}
	return ttl, manual
}

// advertised is the hub's address for agents: what is configured, or the first
// name of a certificate that others than this machine can know, with the port
// that the hub listens on.
func (s *Server) advertised() string {
	if s.cfg.Advertise != "" {
		return s.cfg.Advertise
	}
	port := "443"
	if tcp, ok := s.Addr().(*net.TCPAddr); ok {
		port = strconv.Itoa(tcp.Port)
	}
	var names []string
	if s.cfg.ACME != nil {
		names = append(names, s.cfg.ACME.Hosts...)
	}
	names = append(names, s.cfg.TLSNames...)
	leaf := s.trust.serving.selector.For(nil).Leaf()
	names = append(names, leaf.DNSNames...)
	for _, ip := range leaf.IPAddresses {
		names = append(names, ip.String())
	}
	names = slices.DeleteFunc(names, func(name string) bool { return strings.HasPrefix(name, "*.") })
	if i := slices.IndexFunc(names, func(name string) bool { return !local(name) }); i >= 0 {
		return net.JoinHostPort(names[i], port)
	}
	if len(names) > 0 {
		return net.JoinHostPort(names[0], port)
	}
	return net.JoinHostPort("localhost", port)
}

// local tells whether a name leads nowhere but to the machine that asks.
func local(name string) bool {
	ip := net.ParseIP(name)
	return strings.EqualFold(name, "localhost") || ip != nil && (ip.IsLoopback() || ip.IsUnspecified())
}

// tokenWarnings says what may keep an agent from joining at host.
func (s *Server) tokenWarnings(host string) []string {
	var warnings []string
	if local(host) {
		warnings = append(warnings, fmt.Sprintf("the hub's address in the token is %s, which only agents on this machine reach: "+
			"start the hub with --advertise HOST:PORT, or --tls-name for the name that agents use", host))
	}
	if err := s.trust.serving.covers(host); err != nil {
		warnings = append(warnings, fmt.Sprintf("the hub's certificate is not for %s, so that agents will refuse it: %v", host, err))
	}
	if len(s.trust.serving.authoritiesFor(host)) == 0 && !s.trust.serving.public(host) {
		warnings = append(warnings, s.trust.serving.pairFor(host).Status().Warnings...)
	}
	return warnings
}
