package kubeconfig

import (
	"bytes"
	"crypto/x509"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

var update = flag.Bool("update", false, "write the golden files anew")

const (
	hubCA     = "-----BEGIN CERTIFICATE-----\nhub\n-----END CERTIFICATE-----\n"
	clusterCA = "-----BEGIN CERTIFICATE-----\ncluster\n-----END CERTIFICATE-----\n"
	uid       = "cluster-edge-1.edge.example.com"
)

func forms() map[string]Entry {
	own := &api.AuthInfo{ClientCertificateData: []byte("certificate"), ClientKeyData: []byte("key")}
	snippets := SAN(uid)
	of := func(mode Mode) Info {
		return Info{Cluster: "edge-1", Hub: "https://hub.example.com:8443", Mode: mode, Access: AccessTunnel}
	}
	passthrough := of(ModePassthrough)
	passthrough.Snippets = &snippets
	return map[string]Entry{
		"path": {
			Name: "edge-1", Endpoint: Path("hub.example.com:8443", "edge-1", []byte(hubCA)), Info: of(ModePath),
			User: PluginUser("culvert", "--hub", "https://hub.example.com:8443", "--token-file", "/home/me/token"),
		},
		"sni": {
			Name: "edge-1", Endpoint: Named(uid, "443", []byte(hubCA)), Info: of(ModeSNI),
			User: &api.AuthInfo{Token: "bearer"}, Namespace: "shop",
		},
		"passthrough": {Name: "edge-1", Endpoint: Named(uid, "443", []byte(clusterCA)), Info: passthrough, User: own},
		"end-to-end": {
			Name: "edge-1", Info: of(ModeEndToEnd), User: own,
			Endpoint: EndToEnd("edge-1.edge.example.com", "kubernetes", "https://culvert:bearer@hub.example.com:8443", []byte(hubCA), []byte(clusterCA)),
		},
	}
}

func TestForms(t *testing.T) {
	for name, e := range forms() {
		t.Run("S3,S15,S16,S17: the form is the golden file: "+name, func(t *testing.T) {
			got, err := Encode(e)
			if err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", name+".yaml")
			if *update {
				if err := os.WriteFile(golden, got, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%v: got\n%s", err, got)
			}
			config, err := clientcmd.Load(got)
			if err != nil {
				t.Fatal(err)
			}
			if err := clientcmd.Validate(*config); err != nil {
				t.Errorf("client-go: %v", err)
			}
			back, err := Decode(got)
			if err != nil || len(back) != 1 {
				t.Fatalf("%v %v", back, err)
			}
			e.Info.Generation = e.Generation()
			if !reflect.DeepEqual(back[0].Endpoint, e.Endpoint) || !reflect.DeepEqual(back[0].Info, e.Info) {
				t.Errorf("read back: %+v", back[0])
			}
		})
	}
}

func TestBuild(t *testing.T) {
	if _, err := Build(Entry{Name: "a"}, Entry{Name: "a"}); err == nil {
		t.Error("two entries of one name are built")
	}
	if _, err := Build(Entry{}); err == nil {
		t.Error("an entry without a name is built")
	}
	t.Run("D17: without verification there is no CA in the file, which client-go would refuse", func(t *testing.T) {
		e := forms()["path"]
		e.Insecure = true
		text, err := Encode(e)
		if err != nil || strings.Contains(string(text), "certificate-authority-data") || !strings.Contains(string(text), "insecure-skip-tls-verify: true") {
			t.Errorf("%v\n%s", err, text)
		}
	})
}

func TestGeneration(t *testing.T) {
	e := forms()["end-to-end"].Endpoint
	with := func(change func(*Endpoint)) Endpoint {
		other := e
		change(&other)
		return other
	}
	if got := with(func(o *Endpoint) { o.ProxyURL = "https://culvert:other@hub.example.com:8443" }).Generation(); got != e.Generation() {
		t.Error("another token is another generation")
	}
	seen := map[string]bool{e.Generation(): true}
	for _, change := range []func(*Endpoint){
		func(o *Endpoint) { o.Server = "https://x" }, func(o *Endpoint) { o.CA = nil }, func(o *Endpoint) { o.TLSServerName = "" },
		func(o *Endpoint) { o.ProxyURL = "http://hub:3128" }, func(o *Endpoint) { o.Insecure = true },
	} {
		if got := with(change).Generation(); seen[got] {
			t.Error("a change is not seen")
		} else {
			seen[got] = true
		}
	}
}

func TestSAN(t *testing.T) {
	snippets := SAN(uid)
	if missing, yes := snippets.Missing(&x509.Certificate{DNSNames: []string{"kubernetes"}}); !yes || missing.Type != "SANMissing" ||
		!strings.Contains(missing.Message, "certSANs:\n  - \""+uid+"\"\n") || !strings.Contains(missing.Message, "tls-san:\n- \""+uid+"\"\n") {
		t.Errorf("%+v", missing)
	}
	for _, name := range []string{uid, "*.edge.example.com"} {
		if missing, yes := snippets.Missing(&x509.Certificate{DNSNames: []string{name}}); yes {
			t.Errorf("%s: %+v", name, missing)
		}
	}
	if got := InternalName(&x509.Certificate{DNSNames: []string{"kubernetes.default.svc", "kubernetes.default"}}); got != "kubernetes.default" {
		t.Errorf("%q", got)
	}
	if got := InternalName(&x509.Certificate{DNSNames: []string{"api.example.com"}}); got != "" {
		t.Errorf("%q", got)
	}
}

func TestParse(t *testing.T) {
	for text, want := range map[string]Mode{"": ModePath, "end-to-end": ModeEndToEnd} {
		if got, err := ParseMode(text); err != nil || got != want {
			t.Errorf("%q: %v %v", text, got, err)
		}
	}
	if _, err := ParseMode("SNI"); err == nil || !strings.Contains(err.Error(), "path, sni, passthrough or end-to-end") {
		t.Errorf("%v", err)
	}
	if _, err := ParseAccess("both"); err == nil {
		t.Error("both is an access")
	}
}

func FuzzDecode(f *testing.F) {
	for _, e := range forms() {
		text, err := Encode(e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte("clusters: [{name: a, cluster: {extensions: [{name: culvert.dev/kubeconfig, extension: []}]}}]\ncontexts: [{name: a, context: {cluster: a}}]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		entries, err := Decode(text)
		if err != nil {
			return
		}
		for _, e := range entries {
			if e.Name == "" {
				continue
			}
			if _, err := Encode(e); err != nil {
				t.Errorf("what was read cannot be written: %v", err)
			}
		}
	})
}
