package testbed

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// firewall makes the namespace a router which lets connections out from the link
// inner to the link outer, hidden behind its own address, and lets no new one in.
// As a ruleset of nft(8):
//
//	chain nat     { type nat hook postrouting priority srcnat; oifname OUTER masquerade; }
//	chain forward { type filter hook forward priority filter; policy drop;
//	                ct state established,related accept; iifname INNER accept; }
//	chain input   { type filter hook input priority filter; policy drop;
//	                ct state established,related accept; iifname INNER accept; }
func (n *Namespace) firewall(inner, outer string) error {
	conn, err := nftables.New(nftables.WithNetNSFd(int(n.handle)))
	if err != nil {
		return fmt.Errorf("router: firewall: %w", err)
	}
	table := conn.AddTable(&nftables.Table{Name: "router", Family: nftables.TableFamilyIPv4})
	nat := conn.AddChain(&nftables.Chain{
		Name: "nat", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	})
	conn.AddRule(&nftables.Rule{
		Table: table, Chain: nat,
		Exprs: append(linkIs(expr.MetaKeyOIFNAME, outer), &expr.Masq{}),
	})
	drop := nftables.ChainPolicyDrop
	for name, hook := range map[string]*nftables.ChainHook{
		"forward": nftables.ChainHookForward,
		"input":   nftables.ChainHookInput,
	} {
		chain := conn.AddChain(&nftables.Chain{
			Name: name, Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: hook, Priority: nftables.ChainPriorityFilter, Policy: &drop,
		})
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append(isReply(), accept())})
		conn.AddRule(&nftables.Rule{
			Table: table, Chain: chain,
			Exprs: append(linkIs(expr.MetaKeyIIFNAME, inner), accept()),
		})
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("router: firewall: %w", err)
	}
	return nil
}

func accept() expr.Any { return &expr.Verdict{Kind: expr.VerdictAccept} }

// linkIs matches packets of the link with that name.
func linkIs(key expr.MetaKey, name string) []expr.Any {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: padded},
	}
}

// isReply matches packets of a connection that was allowed before.
func isReply() []expr.Any {
	states := expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{
			SourceRegister: 1, DestRegister: 1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(states),
			Xor:  binaryutil.NativeEndian.PutUint32(0),
		},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(0)},
	}
}
