package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"path"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// nonroot is the user and group of everything that runs: a number that Kubernetes
// can judge, which a name is not.
const nonroot = 65532

// Where images have what programs look for by themselves.
const (
	rootsPath     = "/etc/ssl/certs/ca-certificates.crt"
	hubStatePath  = "/var/lib/culvert"
	agentState    = "/var/lib/culvert-agent"
	licencesPath  = "/licenses"
	homePath      = "/home/nonroot"
	passwdContent = "root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n"
	groupContent  = "root:x:0:\nnonroot:x:65532:\n"
)

// entry is a file of a layer or an archive, or a folder where its name ends in "/".
type entry struct {
	name    string
	mode    int64
	owner   int
	content []byte
}

// writeTar writes entries in their order, each of the same time.
func writeTar(w io.Writer, entries []entry, when time.Time) error {
	t := tar.NewWriter(w)
	for _, e := range entries {
		header := &tar.Header{
			Name: e.name, Mode: e.mode, Uid: e.owner, Gid: e.owner, Size: int64(len(e.content)),
			ModTime: when, Typeflag: tar.TypeReg, Format: tar.FormatUSTAR,
		}
		if e.name[len(e.name)-1] == '/' {
			header.Typeflag = tar.TypeDir
		}
		if err := t.WriteHeader(header); err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
		if _, err := t.Write(e.content); err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
	}
	return t.Close()
}

// layer makes one of entries with absolute names.
func layer(entries []entry, when time.Time) (v1.Layer, error) {
	relative := make([]entry, len(entries))
	for i, e := range entries {
		relative[i] = e
		relative[i].name = e.name[1:]
	}
	var b bytes.Buffer
	if err := writeTar(&b, relative, when); err != nil {
		return nil, fmt.Errorf("layer: %w", err)
	}
	return tarball.LayerFromOpener(
		func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil },
		tarball.WithMediaType(types.OCILayer), tarball.WithCompressionLevel(gzip.BestCompression), tarball.WithCompressedCaching,
	)
}

// baseEntries are the same in every image: who runs, which CAs are trusted, and
// the folders that a program may write to, where the root is not read-only or a
// volume is mounted, which then gets this owner.
func baseEntries() ([]entry, error) {
	roots, _, err := rootsPEM()
	if err != nil {
		return nil, fmt.Errorf("CA certificates: %w", err)
	}
	folder := func(name string) entry { return entry{name: name + "/", mode: 0o755} }
	own := func(name string) entry { return entry{name: name + "/", mode: 0o700, owner: nonroot} }
	return []entry{
		folder("/etc"), {name: "/etc/group", mode: 0o644, content: []byte(groupContent)},
		{name: "/etc/passwd", mode: 0o644, content: []byte(passwdContent)},
		folder("/etc/ssl"), folder(path.Dir(rootsPath)), {name: rootsPath, mode: 0o644, content: roots},
		folder("/home"), own(homePath),
		{name: "/tmp/", mode: 0o1777},
		folder("/var"), folder("/var/lib"), own(hubStatePath), own(agentState),
	}, nil
}

// programEntries are what an image has of its own.
func programEntries(program string, content []byte, texts []entry) []entry {
	entries := []entry{{name: "/" + program, mode: 0o755, content: content}, {name: licencesPath + "/", mode: 0o755}}
	for _, text := range texts {
		text.name = licencesPath + "/" + text.name
		entries = append(entries, text)
	}
	return entries
}
