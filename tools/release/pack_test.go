package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/x509"
	"debug/buildinfo"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

var when = time.Unix(1700000000, 0).UTC()

func TestPack(t *testing.T) {
	entries := []entry{{name: "culvert", mode: 0o755, content: []byte("binary")}, {name: "systemd/x.service", mode: 0o644, content: []byte("unit")}}
	for _, p := range []platform{{"linux", "amd64"}, {"windows", "amd64"}} {
		file, first, err := pack("culvert_v1.2.3", p, entries, when)
		if err != nil {
			t.Fatal(err)
		}
		_, second, err := pack("culvert_v1.2.3", p, entries, when)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(first, second) {
			t.Errorf("%s: two archives of the same differ", file)
		}
		names := listTar
		if p.os == "windows" {
			names = listZip
		}
		const want = "culvert_v1.2.3/culvert -rwxr-xr-x 1700000000\nculvert_v1.2.3/systemd/x.service -rw-r--r-- 1700000000\n"
		if got := names(t, first); got != want {
			t.Errorf("%s has\n%swant\n%s", file, got, want)
		}
	}
}

func listTar(t *testing.T, raw []byte) string {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	var list strings.Builder
	for r := tar.NewReader(z); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return list.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		line(&list, header.Name, header.FileInfo().Mode().String(), header.ModTime)
	}
}

func listZip(t *testing.T, raw []byte) string {
	t.Helper()
	r, err := zip.NewReader(bytes.NewReader(raw), int64(len(raw)))
	if err != nil {
		t.Fatal(err)
	}
	var list strings.Builder
	for _, file := range r.File {
		line(&list, file.Name, file.Mode().String(), file.Modified)
	}
	return list.String()
}

func line(b *strings.Builder, name, mode string, at time.Time) {
	fmt.Fprintf(b, "%s %s %d\n", name, mode, at.Unix())
}

func TestRoots(t *testing.T) {
	text, left, err := rootsPEM()
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			t.Error(err)
		}
		count++
	}
	t.Logf("%d CAs, %d with a condition are left out", count, left)
	if count < 80 || left > count/5 {
		t.Errorf("%d CAs, and %d left out", count, left)
	}
}

func TestBillOfMaterials(t *testing.T) {
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	info, err := buildinfo.Read(bytes.NewReader(self))
	if err != nil {
		t.Fatal(err)
	}
	src := source{version: "v1.2.3", time: when}
	binaries := []binary{
		{program: "culvert-hub", platform: platform{"linux", "amd64"}, content: self, info: info},
		{program: "culvert", platform: platform{"linux", "amd64"}, content: self, info: info},
	}
	first, err := sbom("culvert", src, binaries)
	if err != nil {
		t.Fatal(err)
	}
	second, err := sbom("culvert", src, binaries)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, second) {
		t.Error("two of the same differ")
	}
	for _, part := range []string{`"CycloneDX"`, `"2023-11-14T22:13:20Z"`, `"urn:uuid:`, "pkg:golang/github.com/google/go-containerregistry@v0.22.1", "pkg:golang/std@", binaries[0].sha256()} {
		if !strings.Contains(string(first), part) {
			t.Errorf("it lacks %s", part)
		}
	}
	changed := binaries[:1]
	other, err := sbom("culvert", src, changed)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(first, other) {
		t.Error("that of fewer programs is the same")
	}
}
