package outbound

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"io"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func foreignCA(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return pemOf(cert)
}

// FuzzAnswer feeds any bytes as a proxy's answer: nothing is lost behind the
// head, nothing beyond the bound is read for it, and no text of it is in an
// error.
func FuzzAnswer(f *testing.F) {
	const marker = "SECRETMARKER"
	for _, seed := range []string{
		"HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\nrest", "HTTP/1.0 200\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\nrest",
		"HTTP/1.1 407 x\r\nProxy-Authenticate: Basic realm=\"x\", NTLM\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nrest", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: x\r\n\r\n", "HTTP/2.0 200 OK\r\n\r\n", "HTTP/1.1 999999 OK\r\n\r\n",
		"\x15\x03\x01\x00\x02\x02\x46", "SSH-2.0-x\r\n", "HTTP/1.1 200 OK\nA:b\n\nrest", "HTTP/1.1 200 OK\r\n A: b\r\n\r\n", strings.Repeat("HTTP/1.1 100 x\r\n\r\n", 10), "",
	} {
		f.Add([]byte(seed), false)
		f.Add([]byte(strings.ReplaceAll(seed, "x", marker)), true)
	}
	f.Fuzz(func(t *testing.T, data []byte, slow bool) {
		source := bytes.NewReader(data)
		var conn io.Reader = source
		if slow {
			conn = iotest.OneByteReader(source)
		}
		status, header, rest, err := readAnswer(conn, &http.Request{Method: http.MethodConnect})
		if consumed := len(data) - source.Len(); consumed > maxAnswer {
			t.Fatalf("%d bytes were read", consumed)
		}
		if err != nil {
			if strings.Contains(err.Error(), marker) {
				t.Fatalf("the answer is in the error: %v", err)
			}
			return
		}
		if status/100 == 1 && status != http.StatusSwitchingProtocols {
			t.Fatalf("an interim answer is the final one: %d", status)
		}
		read := data[:len(data)-source.Len()]
		if !bytes.HasSuffix(read, rest) {
			t.Fatalf("%q is not what came behind the head of %q", rest, read)
		}
		if head := read[:len(read)-len(rest)]; !bytes.HasSuffix(head, []byte("\n")) {
			t.Fatalf("the head %q does not end with a line", head)
		}
		refused := &Error{Proxy: "http://p", Address: hub, Status: status, Schemes: schemes(header)}
		if strings.Contains(refused.Error(), marker) {
			t.Fatalf("the answer is in the error: %v", refused)
		}
	})
}
