package kube

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// serviceURL is that of a path of a service of namespace shop, which is named as
// in Kubernetes: [http:|https:]service[:port].
func serviceURL(service, path string) string {
	return managedURL + servicePath(service, path)
}

func servicePath(service, path string) string {
	return "/api/v1/namespaces/shop/services/" + service + "/proxy-service" + path
}

func testServices(t *testing.T, w *world) {
	reflect := func(t *testing.T, url string, header ...string) reflection {
		t.Helper()
		res, err := send(t.Context(), w.caller(t, 2), "GET", url, nil, append(header, "Authorization", "Bearer "+adaToken)...)
		must(t, err)
		var seen reflection
		if err := json.Unmarshal(res.body, &seen); err != nil || res.status != 200 {
			t.Fatalf("%s: %d %v %s", url, res.status, res.header, res.body)
		}
		return seen
	}
	t.Run("O3,O21: a service is reached by number, by name and without a port, by https and http", func(t *testing.T) {
		for service, host := range map[string]string{
			"https:web:443": "web.shop.svc", "https:web:https": "web.shop.svc", "https:web": "web.shop.svc", "web": "web.shop.svc",
			"web:9443": "web.shop.svc:9443", "web:extra": "web.shop.svc", "https:web:": "web.shop.svc",
			"http:web:80": "web.shop.svc", "http:web:http": "web.shop.svc", "http:web": "web.shop.svc",
			"single": "single.shop.svc", "https:single:only": "single.shop.svc", "single:7443": "single.shop.svc:7443",
			"ports:open": "ports.shop.svc", "https%3Aweb%3A443": "web.shop.svc",
		} {
			if seen := reflect(t, serviceURL(service, "/reflect")); seen.Host != host || seen.Target != "/reflect" {
				t.Errorf("%s: the service saw host %q and target %q", service, seen.Host, seen.Target)
			}
		}
	})
	t.Run("O20,O21: the path and the query behind proxy-service arrive byte for byte", func(t *testing.T) {
		for _, tail := range []string{
			"/", "/reflect/", "/a//b///c", "/a%2Fb%2fc", "/%41%7e~", "/sp%20ce+plus", "/caf%C3%A9", "/colon%3A:semi;p=1,c", "/pct%25",
			"/a@b!$&'()*=", "/q?a=1&b=%20+%2B&a=2;c", "/q?", "/q??x=%zz&y=[z]|", "/proxy-service/proxy-service", "/...", "/a|b[c]^d", "/%E9",
		} {
			for _, scheme := range []string{"https", "http"} {
				seen := rawGet(t, w, servicePath(scheme+":web", tail))
				if seen.Target != tail {
					t.Errorf("%s: sent %q, the service saw %q", scheme, tail, seen.Target)
				}
			}
		}
		if seen := reflect(t, serviceURL("web", "")); seen.Target != "/" {
			t.Errorf("nothing behind proxy-service: the service saw %q", seen.Target)
		}
	})
	t.Run("O4,O21: a service sees neither the hub's token nor an identity, and its own Authorization arrives", func(t *testing.T) {
		seen := reflect(t, serviceURL("web", "/reflect"), "X-Remote-User", "root", "X-Remote-Group", "system:masters")
		for name := range seen.Header {
			if name == "Authorization" || strings.HasPrefix(name, "Impersonate") || strings.HasPrefix(name, "X-Remote") || strings.HasPrefix(name, "Culvert") {
				t.Errorf("the service saw %s: %q", name, seen.Header[name])
			}
		}
		res, err := send(t.Context(), w.caller(t, 1), "GET", serviceURL("web", "/reflect"), nil,
			"Authorization", "Bearer "+adaToken, "Impersonate-User", "root")
		if err != nil || res.status != 403 {
			t.Errorf("as somebody else: %d %s, %v", res.status, res.body, err)
		}
		res, err = send(t.Context(), w.caller(t, 1), "GET", serviceURL("web", "/reflect"), nil,
			"Culvert-Authorization", "Bearer "+adaToken, "Authorization", "Basic c2hvcDpzaG9w")
		must(t, err)
		must(t, json.Unmarshal(res.body, &seen))
		if got := seen.Header["Authorization"]; len(got) != 1 || got[0] != "Basic c2hvcDpzaG9w" || len(seen.Header["Culvert-Authorization"]) > 0 {
			t.Errorf("the service saw %v", seen.Header)
		}
	})
	t.Run("O21: what the agent does not allow is refused with 403 and not dialled", func(t *testing.T) {
		for _, service := range []string{"locked", "https:locked:443", "locked:https", "ports:9443", "ports:closed", "database:5432", "http:database:sql", "none"} {
			res := get(t, w.caller(t, 2), serviceURL(service, "/"), w.ops.token, 403)
			if s := statusOf(t, res); s.Reason != "Forbidden" || res.header.Get("X-Culvert-Error") == "" {
				t.Errorf("%s: %v %s", service, res.header, res.body)
			}
		}
		other := managedURL + "/api/v1/namespaces/default/services/web/proxy-service/"
		get(t, w.caller(t, 2), other, w.ops.token, 403)
		if n := w.services.refused.Load(); n != 0 {
			t.Errorf("%d requests reached what is not allowed", n)
		}
	})
	t.Run("O21: without a token nobody reaches a service", func(t *testing.T) {
		res, err := send(t.Context(), w.caller(t, 2), "GET", serviceURL("web", "/reflect"), nil)
		if err != nil || res.status != 401 {
			t.Errorf("got %d %s, %v", res.status, res.body, err)
		}
	})
	t.Run("O21: a service where nothing listens, and a port without a name, say what is wrong", func(t *testing.T) {
		for service, want := range map[string]string{"lost": "refused", "web:unnamed": "unnamed"} {
			res, err := send(t.Context(), w.caller(t, 2), "GET", serviceURL(service, "/"), nil, "Authorization", "Bearer "+w.ops.token)
			must(t, err)
			if s := statusOf(t, res); res.status < 404 || !strings.Contains(s.Message, want) {
				t.Errorf("%s: %d %s", service, res.status, res.body)
			}
		}
	})
	t.Run("O3,O21: the form services/…/proxy/ goes to the API server, which proxies by itself", func(t *testing.T) {
		res := get(t, w.caller(t, 2), managedURL+"/api/v1/namespaces/shop/services/http:relay:http/proxy/reflect?a=b", w.ops.token, 200)
		var seen reflection
		must(t, json.Unmarshal(res.body, &seen))
		if seen.Target != "/reflect?a=b" || seen.Header.Get("X-Forwarded-Uri") == "" {
			t.Errorf("the service saw %+v", seen)
		}
	})
}

// rawGet sends a request target as it is, which no HTTP library would, and
// returns what the service saw.
func rawGet(t *testing.T, w *world, target string) reflection {
	t.Helper()
	conn := w.dial(t)
	_, err := io.WriteString(conn, "GET /managed"+target+" HTTP/1.1\r\nHost: "+hubHost+"\r\nAuthorization: Bearer "+adaToken+"\r\nConnection: close\r\n\r\n")
	must(t, err)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	must(t, err)
	body, err := io.ReadAll(res.Body)
	must(t, err)
	var seen reflection
	if err := json.Unmarshal(body, &seen); err != nil || res.StatusCode != 200 {
		t.Errorf("%s: %d %s", target, res.StatusCode, body)
	}
	return seen
}

// dial connects to the hub with TLS, for HTTP/1.1 by hand. The end of t closes
// the connection; nothing on it takes longer than a minute.
func (w *world) dial(t *testing.T) *tls.Conn {
	t.Helper()
	dialer := &tls.Dialer{Config: w.tls(t)}
	conn, err := dialer.DialContext(t.Context(), "tcp", hubHost)
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() }) // mostly closed by then
	must(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	return conn.(*tls.Conn)
}

// testLarge moves 100 MiB in each direction.
func testLarge(t *testing.T, w *world) {
	const size = 100 << 20
	ctx := within(t, 5*time.Minute)
	for name, version := range versions {
		client := w.caller(t, version)
		t.Run("O21,O22: 100 MiB down through a service URL over "+name+", equal hashes", func(t *testing.T) {
			started := time.Now()
			got := download(ctx, t, client, fmt.Sprintf("%s?bytes=%d", serviceURL("https:web:https", "/down"), size))
			t.Logf("%.0f MiB/s", size/(1<<20)/time.Since(started).Seconds())
			if want := digestOf(t, io.LimitReader(noise(), size)); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
		t.Run("O21,O22: 100 MiB up through a service URL over "+name+", equal hashes", func(t *testing.T) {
			started := time.Now()
			res, err := send(ctx, client, "POST", serviceURL("https:web:443", "/up"), io.LimitReader(noise(), size), "Authorization", "Bearer "+adaToken)
			must(t, err)
			t.Logf("%.0f MiB/s", size/(1<<20)/time.Since(started).Seconds())
			var got digest
			must(t, json.Unmarshal(bytes.TrimSpace(res.body), &got))
			if want := digestOf(t, io.LimitReader(noise(), size)); got != want {
				t.Errorf("the service got %+v, want %+v", got, want)
			}
		})
	}
}

func download(ctx context.Context, t *testing.T, client *http.Client, url string) digest {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	must(t, err)
	req.Header.Set("Authorization", "Bearer "+adaToken)
	res, err := client.Do(req)
	must(t, err)
	defer res.Body.Close()
	if res.StatusCode != 200 {
		t.Fatalf("GET %s: %s", url, res.Status)
	}
	return digestOf(t, res.Body)
}
