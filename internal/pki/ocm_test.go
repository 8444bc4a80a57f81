package pki

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/culvertdev/culvert/internal/route"
)

const ocmUser = "system:open-cluster-management:cluster:edge-1:addon:culvert:agent:culvert-agent"

// ocmGroups are OCM's for the agent of an addon.
func ocmGroups(cluster, addon string) []string {
	return []string{
		"system:open-cluster-management:cluster:" + cluster + ":addon:" + addon,
		"system:open-cluster-management:addon:" + addon,
		"system:authenticated",
	}
}

// ocmSubject is the default subject as crypto/x509/pkix encodes it, which is how
// OCM's agents ask for it.
func ocmSubject(cluster, addon, agent string) pkix.Name {
	return pkix.Name{
		CommonName:   "system:open-cluster-management:cluster:" + cluster + ":addon:" + addon + ":agent:" + agent,
		Organization: ocmGroups(cluster, addon),
	}
}

// encodeSubject encodes a name whose attributes are each a set of their own.
func encodeSubject(tb testing.TB, attributes ...subjectAttribute) []byte {
	tb.Helper()
	var sets []subjectSET
	for _, a := range attributes {
		sets = append(sets, subjectSET{a})
	}
	der, err := asn1.Marshal(sets)
	if err != nil {
		tb.Fatal(err)
	}
	return der
}

func attribute(oid asn1.ObjectIdentifier, tag int, text string) subjectAttribute {
	return subjectAttribute{Type: oid, Value: asn1.RawValue{Class: asn1.ClassUniversal, Tag: tag, Bytes: []byte(text)}}
}

func commonNameOf(text string) subjectAttribute {
	return attribute(oidCommonName(), asn1.TagUTF8String, text)
}

func organizationOf(text string) subjectAttribute {
	return attribute(oidOrganization(), asn1.TagPrintableString, text)
}

// organizations are attributes of their own sets.
func organizations(texts ...string) []subjectAttribute {
	var out []subjectAttribute
	for _, text := range texts {
		out = append(out, organizationOf(text))
	}
	return out
}

func TestOCMAddonAccepts(t *testing.T) {
	rule := OCMAddon{Name: "culvert"}
	long := strings.Repeat("a", 63)
	for _, cluster := range []string{"edge-1", "0", long} {
		der, err := asn1.Marshal(ocmSubject(cluster, "culvert", "culvert-agent").ToRDNSequence())
		if err != nil {
			t.Fatal(err)
		}
		// Names of every other kind are not read.
		cert := withExtension(nil)
		cert.RawSubject, cert.DNSNames = der, []string{"edge-9"}
		if got, err := rule.ClusterOf(cert); err != nil || got != cluster {
			t.Errorf("cluster %q, %v; want %q", got, err, cluster)
		}
	}
	// Names that OCM gives by chance; some have no letter.
	for _, agent := range []string{"x7b2k", "24579", "3fa85f64-5717-4562-b3fc-2c963f66afa6", "10.0.0.1", "a.7"} {
		der, err := asn1.Marshal(ocmSubject("edge-1", "culvert", agent).ToRDNSequence())
		if err != nil {
			t.Fatal(err)
		}
		if got, err := rule.ClusterOf(&x509.Certificate{RawSubject: der}); err != nil || got != "edge-1" {
			t.Errorf("the agent %s: %q, %v", agent, got, err)
		}
	}
	groups := ocmGroups("edge-1", "culvert")
	slices.Reverse(groups)
	der := encodeSubject(t, append(organizations(groups...), commonNameOf(ocmUser))...)
	if got, err := rule.ClusterOf(&x509.Certificate{RawSubject: der}); err != nil || got != "edge-1" {
		t.Errorf("attributes in another order, in sets of their own: %q, %v", got, err)
	}
}

func TestOCMAddonRefuses(t *testing.T) {
	groups := ocmGroups("edge-1", "culvert")
	with := func(user string, groups ...string) []byte {
		return encodeSubject(t, append(organizations(groups...), commonNameOf(user))...)
	}
	user := func(cluster string) string { return strings.Replace(ocmUser, "edge-1", cluster, 1) }
	for _, test := range []struct {
		name string
		der  []byte
		want string
	}{
		{"no subject", encodeSubject(t), "0 common names, want one"},
		{"not a subject", []byte("subject"), "malformed"},
		{"more after the end", append(with(ocmUser, groups...), 5, 0), "data after the end"},
		{"no common name", encodeSubject(t, organizations(groups...)...), "0 common names"},
		{"two common names", encodeSubject(t, append(organizations(groups...), commonNameOf(ocmUser), commonNameOf(user("edge-2")))...), "2 common names"},
		{"the same twice", encodeSubject(t, append(organizations(groups...), commonNameOf(ocmUser), commonNameOf(ocmUser))...), "2 common names"},
		{"an organizational unit", encodeSubject(t, append(organizations(groups...), commonNameOf(ocmUser), attribute(asn1.ObjectIdentifier{2, 5, 4, 11}, asn1.TagUTF8String, "edge-2"))...), "attribute 2.5.4.11"},
		{"a cluster in the unit alone", encodeSubject(t, attribute(asn1.ObjectIdentifier{2, 5, 4, 11}, asn1.TagUTF8String, ocmUser)), "attribute 2.5.4.11"},
		{"no organizations", with(ocmUser), "organizations are none"},
		{"one organization missing", with(ocmUser, groups[:2]...), "organizations are"},
		{"an organization twice", with(ocmUser, groups[0], groups[1], groups[2], groups[2]), "organizations are"},
		{"one twice in another's place", with(ocmUser, groups[0], groups[0], groups[2]), "organizations are"},
		{"an organization more", with(ocmUser, append(groups, "system:masters")...), "organizations are"},
		{"organizations of another cluster", with(ocmUser, ocmGroups("edge-2", "culvert")...), "organizations are"},
		{"organizations of another addon", with(ocmUser, ocmGroups("edge-1", "proxy")...), "organizations are"},
		{"another addon", with(strings.Replace(ocmUser, "addon:culvert", "addon:proxy", 1), ocmGroups("edge-1", "proxy")...), `of the addon "proxy", want culvert`},
		{"an addon that begins alike", with(strings.Replace(ocmUser, "addon:culvert", "addon:culvert2", 1), ocmGroups("edge-1", "culvert2")...), `of the addon "culvert2"`},
		{"a klusterlet", with("system:open-cluster-management:edge-1:agent", groups...), "want system:open-cluster-management:cluster:<cluster>"},
		{"a node", with("system:node:edge-1", groups...), "want system:open-cluster-management:"},
		{"no agent", with(strings.TrimSuffix(ocmUser, ":agent:culvert-agent"), groups...), "want system:open-cluster-management:"},
		{"an empty agent", with(strings.TrimSuffix(ocmUser, "culvert-agent"), groups...), `agent: ""`},
		{"a path as an agent", with(strings.Replace(ocmUser, "culvert-agent", "../a", 1), groups...), `agent: "../a"`},
		{"an agent with an empty label", with(strings.Replace(ocmUser, "culvert-agent", "a..b", 1), groups...), `agent: "a..b"`},
		{"an upper-case agent", with(strings.Replace(ocmUser, "culvert-agent", "A", 1), groups...), `agent: "A"`},
		{"more parts", with(ocmUser+":addon:culvert", groups...), "want system:open-cluster-management:"},
		{"two clusters", with(user("edge-1:cluster:edge-2"), groups...), "want system:open-cluster-management:"},
		{"an empty cluster", with(user(""), ocmGroups("", "culvert")...), ""},
		{"a dot in the cluster", with(user("edge.1"), ocmGroups("edge.1", "culvert")...), "edge.1"},
		{"an upper-case cluster", with(user("Edge-1"), ocmGroups("Edge-1", "culvert")...), "Edge-1"},
		{"the hub's own name", with(user("-"), ocmGroups("-", "culvert")...), ""},
		{"an upper-case prefix", with(strings.ToUpper(ocmUser), groups...), "want system:open-cluster-management:"},
		{"a space in front", with(" "+ocmUser, groups...), "byte 0x20 is not allowed"},
		{"a zero byte", with(user("edge-1\x00edge-2"), groups...), "byte 0x00 is not allowed"},
		{"a letter that looks alike", with(user("еdge-1"), groups...), "byte 0xd0 is not allowed"},
		{"another encoding", encodeSubject(t, append(organizations(groups...), attribute(oidCommonName(), asn1.TagT61String, ocmUser))...), "neither a UTF8String nor a PrintableString"},
		{"wide characters", encodeSubject(t, append(organizations(groups...), attribute(oidCommonName(), asn1.TagBMPString, ocmUser))...), "neither a UTF8String nor a PrintableString"},
	} {
		t.Run(test.name, func(t *testing.T) {
			cert := withExtension(nil)
			cert.RawSubject = test.der
			cert.Subject = ocmSubject("edge-1", "culvert", "culvert-agent") // never read
			got, err := OCMAddon{Name: "culvert"}.ClusterOf(cert)
			if got != "" {
				t.Errorf("it is cluster %q", got)
			}
			wantError(t, test.name, err, test.want)
		})
	}
	_, err := OCMAddon{}.ClusterOf(&x509.Certificate{RawSubject: with(ocmUser, groups...)})
	wantError(t, "a rule without an addon", err, "addon: empty")
}

// FuzzOCMAddon holds what is accepted against the one spelling that there is.
func FuzzOCMAddon(f *testing.F) {
	groups := ocmGroups("edge-1", "culvert")
	good, err := asn1.Marshal(ocmSubject("edge-1", "culvert", "culvert-agent").ToRDNSequence())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(encodeSubject(f, append(organizations(groups...), commonNameOf(ocmUser))...))
	f.Add(encodeSubject(f, append(organizations(groups...), commonNameOf(ocmUser), commonNameOf(ocmUser))...))
	f.Add(encodeSubject(f))
	f.Fuzz(func(t *testing.T, der []byte) {
		cluster, err := OCMAddon{Name: "culvert"}.ClusterOf(&x509.Certificate{RawSubject: der})
		if err != nil {
			if cluster != "" {
				t.Errorf("%q beside an error", cluster)
			}
			return
		}
		if err := route.CheckCluster(cluster); err != nil {
			t.Errorf("accepted %q: %v", cluster, err)
		}
		// No cluster is named but the one, and nothing else is said.
		if n := bytes.Count(der, []byte(":cluster:"+cluster+":addon:culvert")); n != 2 {
			t.Errorf("%q is named %d times in %q", cluster, n, der)
		}
		// What the standard library makes of it has one name and the three groups.
		var sequence pkix.RDNSequence
		if _, err := asn1.Unmarshal(der, &sequence); err != nil {
			t.Fatalf("accepted what is no subject: %v", err)
		}
		var name pkix.Name
		name.FillFromRDNSequence(&sequence)
		if !strings.HasPrefix(name.CommonName, ocmPrefix+"cluster:"+cluster+":") || len(name.Organization) != 3 || len(name.Names) != 4 {
			t.Errorf("accepted %v", name)
		}
	})
}

// ocmTemplate is an agent's certificate as OCM's signer makes it.
func ocmTemplate(cluster string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: bigOf(64), Subject: ocmSubject(cluster, "culvert", "culvert-agent"),
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageKeyEncipherment | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
}

func stateOf(cert tls.Certificate, more ...*x509.Certificate) tls.ConnectionState {
	return tls.ConnectionState{PeerCertificates: append([]*x509.Certificate{cert.Leaf}, more...)}
}

func TestVerifyAgents(t *testing.T) {
	own, ocm, other := newAuthority(t, RoleAgents), newAuthority(t, RoleAgents), newAuthority(t, RoleAgents)
	rule := OCMAddon{Name: "culvert"}
	var checked []string
	sources := []AgentAuthority{
		{Name: "the agents CA", Roots: own, ClusterOf: func(c *x509.Certificate) (string, error) { return ClusterOf(c, trustDomain) }},
		{Name: "agentAuthorities[0]", Roots: ocm, ClusterOf: rule.ClusterOf, Checks: []AgentCheck{func(cluster string, _ *x509.Certificate) error {
			checked = append(checked, cluster)
			return nil
		}}},
	}
	verify := VerifyAgents(sources...)
	accept := func(name, want string, state tls.ConnectionState) {
		t.Helper()
		if got, err := verify(state); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, want)
		}
	}
	refuse := func(name string, state tls.ConnectionState, parts ...string) {
		t.Helper()
		got, err := verify(state)
		if got != "" {
			t.Errorf("%s: it is cluster %q", name, got)
		}
		wantError(t, name, err, parts...)
	}
	accept("the hub's own", "edge-1", stateOf(agentPair(t, own, "edge-1", time.Hour)))
	accept("OCM's", "edge-2", stateOf(signed(t, ocm, ocmTemplate("edge-2"))))
	if !slices.Equal(checked, []string{"edge-2"}) {
		t.Errorf("checks of OCM's authority saw %v", checked)
	}
	refuse("OCM's subject, signed by the hub's own CA", stateOf(signed(t, own, ocmTemplate("edge-1"))), "rule of the agents CA", "no URI subject alternative name")
	refuse("the hub's name, signed by OCM's CA", stateOf(agentPair(t, ocm, "edge-1", time.Hour)), "rule of agentAuthorities[0]", "common name")
	both := ocmTemplate("edge-1")
	both.URIs = []*url.URL{agentURL(trustDomain, "edge-9")}
	accept("both names, signed by OCM's CA", "edge-1", stateOf(signed(t, ocm, both)))
	accept("both names, signed by the hub's own", "edge-9", stateOf(signed(t, own, both)))
	refuse("a CA that is not configured", stateOf(signed(t, other, ocmTemplate("edge-1"))), "not trusted here", "nor by one of agentAuthorities[0]")
	expired := ocmTemplate("edge-1")
	expired.NotBefore, expired.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(-time.Minute)
	refuse("an expired one of OCM's", stateOf(signed(t, ocm, expired)), "expired")
	server := ocmTemplate("edge-1")
	server.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	refuse("one for servers", stateOf(signed(t, ocm, server)), "want TLS clients")
	verify = VerifyAgents(sources[0], sources[1], AgentAuthority{Name: "agentAuthorities[1]", Roots: ocm, ClusterOf: OCMAddon{Name: "proxy"}.ClusterOf})
	refuse("a CA with two rules", stateOf(signed(t, ocm, ocmTemplate("edge-1"))), "agentAuthorities[0] and agentAuthorities[1]")
}
