package kube

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"
)

// digestOf reads to the end.
func digestOf(t *testing.T, r io.Reader) digest {
	t.Helper()
	hash := sha256.New()
	n, err := io.Copy(hash, r)
	must(t, err)
	return digest{n, hex.EncodeToString(hash.Sum(nil))}
}

// apiRelay is the URL of a path of the service relay by way of kube-apiserver's
// own proxy: an API path like any other.
func apiRelay(path string) string {
	return managedURL + "/api/v1/namespaces/shop/services/http:relay:http/proxy" + path
}

func testStreams(t *testing.T, w *world) {
	ctx := within(t, 3*time.Minute)
	ways := map[string]string{
		"an https service": serviceURL("web", ""), "an http service": serviceURL("http:web", ""), "kube-apiserver": apiRelay(""),
	}
	for way, base := range ways {
		for name, version := range versions {
			client := w.caller(t, version)
			t.Run("O20,O22: each piece from "+way+" over "+name+" arrives before the next is sent", func(t *testing.T) {
				res := open(ctx, t, client, base+"/pieces", w.ops.token)
				lines := bufio.NewReader(res.Body)
				for i := range pieceCount {
					line, err := lines.ReadString('\n')
					if want := fmt.Sprintf("piece %d\n", i); err != nil || line != want {
						t.Fatalf("got %q, %v; want %q", line, err, want)
					}
					w.services.next <- struct{}{}
				}
				if rest, err := io.ReadAll(lines); err != nil || len(rest) > 0 {
					t.Errorf("after the last piece: %q, %v", rest, err)
				}
			})
			t.Run("O20,O22: a conversation in chunks with "+way+" over "+name+", and trailers", func(t *testing.T) {
				goodbye := converse(ctx, t, client, base+"/stream", w.ops.token)
				// kube-apiserver itself passes trailers of answers only.
				if goodbye != "goodbye" && way != "kube-apiserver" {
					t.Errorf("the trailer of the request arrived as %q", goodbye)
				}
			})
		}
	}
}

// converse sends each piece only after the answer has brought back the one
// before, and then looks at the trailer. It returns what the service read in the
// trailer of the request, which says goodbye.
func converse(ctx context.Context, t *testing.T, client *http.Client, url, token string) string {
	t.Helper()
	from, to := io.Pipe()
	req, err := http.NewRequestWithContext(ctx, "POST", url, from)
	must(t, err)
	req.Header.Set("Authorization", "Bearer "+token)
	req.Trailer = http.Header{"Said-At-End": nil}
	res, err := client.Do(req)
	must(t, err)
	defer res.Body.Close()
	if res.StatusCode != 200 {
		t.Fatalf("%s", res.Status)
	}
	hash := sha256.New()
	lines := bufio.NewReader(res.Body)
	for i := range pieceCount {
		said := fmt.Sprintf("piece %d\n", i)
		_, err := io.WriteString(io.MultiWriter(to, hash), said)
		must(t, err)
		if heard, err := lines.ReadString('\n'); err != nil || heard != said {
			t.Fatalf("heard %q, %v; said %q", heard, err, said)
		}
	}
	req.Trailer.Set("Said-At-End", "goodbye")
	must(t, to.Close())
	if rest, err := io.ReadAll(lines); err != nil || len(rest) > 0 {
		t.Errorf("after the last piece: %q, %v", rest, err)
	}
	if got := res.Trailer.Get("Body-Sha256"); got != hex.EncodeToString(hash.Sum(nil)) {
		t.Errorf("the trailer of the answer is %v", res.Trailer)
	}
	return res.Trailer.Get("Said-At-End")
}

// open sends a request and returns the answer while its body is under way.
func open(ctx context.Context, t *testing.T, client *http.Client, url, token string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	must(t, err)
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := client.Do(req)
	must(t, err)
	t.Cleanup(func() { _ = res.Body.Close() }) // read to the end by then
	if res.StatusCode != 200 {
		body, _ := io.ReadAll(res.Body)
		t.Fatalf("GET %s: %s %s", url, res.Status, body)
	}
	return res
}
