package testbed

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// AllowOnly makes the router drop every connection from inside but those to one
// address and port, as networks do whose way out is a proxy. Connections that
// exist go on. It can be called once. As a ruleset of nft(8):
//
//	chain egress { type filter hook forward priority filter - 1; policy accept;
//	               ct state established,related accept;
//	               iifname inner ip daddr ADDRESS tcp dport PORT accept; iifname inner drop; }
func (p *PrivateNetwork) AllowOnly(to netip.AddrPort) error {
	conn, err := nftables.New(nftables.WithNetNSFd(int(p.router.handle)))
	if err != nil {
		return fmt.Errorf("router: egress: %w", err)
	}
	table := conn.AddTable(&nftables.Table{Name: "egress", Family: nftables.TableFamilyIPv4})
	chain := conn.AddChain(&nftables.Chain{
		Name: "egress", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: new(*nftables.ChainPriorityFilter - 1),
	})
	address := to.Addr().As4()
	conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append(isReply(), accept())})
	conn.AddRule(&nftables.Rule{
		Table: table, Chain: chain,
		Exprs: append(linkIs(expr.MetaKeyIIFNAME, "inner"),
			// IPv4's destination, then TCP's destination port.
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: address[:]},
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(to.Port())},
			accept(),
		),
	})
	conn.AddRule(&nftables.Rule{
		Table: table, Chain: chain,
		Exprs: append(linkIs(expr.MetaKeyIIFNAME, "inner"), &expr.Verdict{Kind: expr.VerdictDrop}),
	})
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("router: egress: %w", err)
	}
	return nil
}
