package pki

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"net/url"
	"strings"
	"testing"

	"github.com/culvertdev/culvert/internal/route"
)

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// named is what a parser makes of a certificate with these URIs, whatever bytes
// they have.
func named(tb testing.TB, uris ...string) *x509.Certificate {
	tb.Helper()
	var names []asn1.RawValue
	for _, uri := range uris {
		names = append(names, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tagURI, Bytes: []byte(uri)})
	}
	der, err := asn1.Marshal(names)
	if err != nil {
		tb.Fatal(err)
	}
	return withExtension(der)
}

func withExtension(der []byte) *x509.Certificate {
	return &x509.Certificate{
		// Never read.
		Subject:    pkix.Name{CommonName: "edge-9"},
		URIs:       []*url.URL{{Scheme: "spiffe", Host: trustDomain, Path: "/cluster/edge-9"}},
		Extensions: []pkix.Extension{{Id: subjectAltName(), Value: der}},
	}
}

func TestClusterOf(t *testing.T) {
	long := strings.Repeat("a", 63)
	for uri, want := range map[string]string{
		"spiffe://culvert.local/cluster/edge-1":   "edge-1",
		"spiffe://culvert.local/cluster/0":        "0",
		"spiffe://culvert.local/cluster/" + long:  long,
		"spiffe://culvert.local/cluster/xn--e1a4": "xn--e1a4",
	} {
		if got, err := ClusterOf(named(t, uri), trustDomain); err != nil || got != want {
			t.Errorf("%s is cluster %q, %v; want %q", uri, got, err, want)
		}
	}
	for _, test := range []struct{ name, uri, want string }{
		{"empty", "", "the scheme is not spiffe://"},
		{"https", "https://culvert.local/cluster/a", "the scheme is not spiffe://"},
		{"upper-case scheme", "SPIFFE://culvert.local/cluster/a", "the scheme is not spiffe://"},
		{"opaque", "spiffe:culvert.local/cluster/a", "the scheme is not spiffe://"},
		{"other domain", "spiffe://example.com/cluster/a", `the trust domain is "example.com", want culvert.local`},
		{"no domain", "spiffe:///cluster/a", `the trust domain is ""`},
		{"upper-case domain", "spiffe://Culvert.local/cluster/a", `the trust domain is "Culvert.local"`},
		{"domain with root dot", "spiffe://culvert.local./cluster/a", "the trust domain is"},
		{"subdomain", "spiffe://a.culvert.local/cluster/a", "the trust domain is"},
		{"port", "spiffe://culvert.local:443/cluster/a", "a port is not allowed"},
		{"empty port", "spiffe://culvert.local:/cluster/a", "a port is not allowed"},
		{"user", "spiffe://u@culvert.local/cluster/a", "a user is not allowed"},
		{"empty user", "spiffe://@culvert.local/cluster/a", "a user is not allowed"},
		{"query", "spiffe://culvert.local/cluster/a?b", "a query is not allowed"},
		{"empty query", "spiffe://culvert.local/cluster/a?", "a query is not allowed"},
		{"fragment", "spiffe://culvert.local/cluster/a#b", "a fragment is not allowed"},
		{"empty fragment", "spiffe://culvert.local/cluster/a#", "a fragment is not allowed"},
		{"escaped letter", "spiffe://culvert.local/cluster/%61", "escaped bytes are not allowed"},
		{"escaped slash", "spiffe://culvert.local/cluster%2Fa", "escaped bytes are not allowed"},
		{"no path", "spiffe://culvert.local", `the path is ""`},
		{"other path", "spiffe://culvert.local/peer/a", `the path is "/peer/a", want /cluster/<name>`},
		{"upper-case path", "spiffe://culvert.local/Cluster/a", "the path is"},
		{"double slash", "spiffe://culvert.local//cluster/a", "the path is"},
		{"dot segment", "spiffe://culvert.local/x/../cluster/a", "the path is"},
		{"trailing slash", "spiffe://culvert.local/cluster/a/", "the path is"},
		{"below", "spiffe://culvert.local/cluster/a/b", "the path is"},
		{"no name", "spiffe://culvert.local/cluster/", "cluster: empty"},
		{"upper-case name", "spiffe://culvert.local/cluster/A", "cluster: "},
		{"dots", "spiffe://culvert.local/cluster/..", "cluster: "},
		{"wildcard", "spiffe://culvert.local/cluster/*", "cluster: "},
		{"long name", "spiffe://culvert.local/cluster/" + long + "a", "64 characters"},
		{"NUL", "spiffe://culvert.local/cluster/a\x00", "byte 0x00 is not allowed"},
		{"line feed", "spiffe://culvert.local/cluster/a\n", "byte 0x0a is not allowed"},
		{"space", "spiffe://culvert.local/cluster/a ", "byte 0x20 is not allowed"},
		{"not ASCII", "spiffe://culvert.local/cluster/\u00e9", "byte 0xc3 is not allowed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := ClusterOf(named(t, test.uri), trustDomain)
			wantError(t, got, err, test.want)
		})
	}
}

func TestClusterOfTakesExactlyOneURI(t *testing.T) {
	const id = "spiffe://culvert.local/cluster/a"
	_, err := ClusterOf(named(t), trustDomain)
	wantError(t, "none", err, "no URI subject alternative name, want spiffe://culvert.local/cluster/<name>")
	_, err = ClusterOf(named(t, id, "spiffe://culvert.local/cluster/b"), trustDomain)
	wantError(t, "two", err, "2 URI subject alternative names, want one")
	_, err = ClusterOf(named(t, id, id), trustDomain)
	wantError(t, "twice the same", err, "2 URI subject alternative names, want one")
	_, err = ClusterOf(&x509.Certificate{Subject: pkix.Name{CommonName: "edge-9"}}, trustDomain)
	wantError(t, "common name only", err, "no URI subject alternative name")
	_, err = ClusterOf(withExtension([]byte{0x30, 0x05, 0x86}), trustDomain)
	wantError(t, "cut off", err, "subject alternative names: malformed")
	_, err = ClusterOf(withExtension([]byte{0x30, 0x00, 0x00}), trustDomain)
	wantError(t, "trailing data", err, "malformed: data after the end")
	_, err = ClusterOf(named(t, "spiffe:///cluster/a"), "")
	wantError(t, "no trust domain configured", err, "trust domain: empty")
}

// check holds what is accepted against the one spelling that a cluster has.
func check(t *testing.T, cert *x509.Certificate, domain string) {
	t.Helper()
	cluster, err := ClusterOf(cert, domain)
	if err != nil {
		if cluster != "" {
			t.Errorf("cluster %q with error %v", cluster, err)
		}
		for i := range len(err.Error()) {
			if c := err.Error()[i]; c < ' ' || c > '~' {
				t.Errorf("error %q has a byte that a log should not have", err)
			}
		}
		return
	}
	if err := route.CheckCluster(cluster); err != nil {
		t.Errorf("accepted cluster %q: %v", cluster, err)
	}
	if err := CheckTrustDomain(domain); err != nil {
		t.Errorf("accepted trust domain %q: %v", domain, err)
	}
	uris, err := uriNames(cert)
	if err != nil || len(uris) != 1 || uris[0] != AgentID(domain, cluster) {
		t.Errorf("%q taken for %q: %v", uris, AgentID(domain, cluster), err)
	}
	parsed, err := url.Parse(uris[0])
	if err != nil || parsed.String() != uris[0] || parsed.String() != agentURL(domain, cluster).String() {
		t.Errorf("net/url reads %q as %v: %v", uris[0], parsed, err)
	}
}

func FuzzClusterOfURI(f *testing.F) {
	f.Add("spiffe://culvert.local/cluster/edge-1", trustDomain)
	f.Add("spiffe://a/cluster/b", "a")
	f.Add("spiffe:///cluster/b", "")
	f.Add("spiffe://a:1@b%2f?#/cluster/..", "b")
	f.Add("spiffe://a/cluster/\xff\x00", "a")
	f.Fuzz(func(t *testing.T, uri, domain string) {
		check(t, named(t, uri), domain)
	})
}

func FuzzClusterOfExtension(f *testing.F) {
	f.Add(named(f, "spiffe://culvert.local/cluster/edge-1").Extensions[0].Value)
	f.Add(named(f, "spiffe://culvert.local/cluster/a", "spiffe://culvert.local/cluster/b").Extensions[0].Value)
	f.Add([]byte{0x30, 0x80, 0x00, 0x00})
	f.Add([]byte{0x30, 0x04, 0xa6, 0x02, 0x86, 0x00})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, der []byte) {
		check(t, withExtension(der), trustDomain)
	})
}
