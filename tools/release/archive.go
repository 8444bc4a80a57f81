package main

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// archivePlatforms are those that archives are made for.
var archivePlatforms = []string{
	"linux/amd64", "linux/arm64", "darwin/amd64", "darwin/arm64", "windows/amd64", "windows/arm64",
}

// sums is the file that sha256sum --check reads.
const sums = "SHA256SUMS"

// writeArchives writes an archive and a bill of materials a platform into dir, the
// charts, and SHA256SUMS over all of them, which goes to out too.
func writeArchives(ctx context.Context, b builder, dir string, platforms []platform, out io.Writer) error {
	files := map[string][]byte{}
	for _, name := range chartNames {
		file, content, err := b.chart(name)
		if err != nil {
			return err
		}
		files[file] = content
	}
	for _, p := range platforms {
		binaries, err := b.build(ctx, p, programs)
		if err != nil {
			return err
		}
		entries, err := b.archiveEntries(ctx, p, binaries)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("culvert_%s_%s_%s", b.source.version, p.os, p.arch)
		file, content, err := pack(name, p, entries, b.source.time)
		if err != nil {
			return fmt.Errorf("archive for %v: %w", p, err)
		}
		files[file] = content
		if files[name+".cdx.json"], err = sbom("culvert", b.source, binaries); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	var list strings.Builder
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := writeBeside(dir, name, files[name]); err != nil {
			return err
		}
		fmt.Fprintf(&list, "%x  %s\n", sha256.Sum256(files[name]), name)
	}
	if err := writeBeside(dir, sums, []byte(list.String())); err != nil {
		return err
	}
	_, err := io.WriteString(out, list.String())
	return err
}

// archiveEntries are the files of an archive, in order.
func (b builder) archiveEntries(ctx context.Context, p platform, binaries []binary) ([]entry, error) {
	var entries []entry
	for _, one := range binaries {
		entries = append(entries, entry{name: p.executable(one.program), mode: 0o755, content: one.content})
	}
	texts, err := b.texts(ctx, p, programs)
	if err != nil {
		return nil, err
	}
	entries = append(entries, texts...)
	more := map[string]string{"README.md": "README.md"} // name in the archive by that in the repository
	if p.os == "linux" {
		units, err := filepath.Glob(filepath.Join(b.root, "deploy", "systemd", "*"))
		if err != nil {
			return nil, err
		}
		for _, unit := range units {
			more["deploy/systemd/"+filepath.Base(unit)] = "systemd/" + filepath.Base(unit)
		}
	}
	for _, from := range slices.Sorted(maps.Keys(more)) {
		text, err := os.ReadFile(filepath.Join(b.root, filepath.FromSlash(from)))
		if err != nil {
			return nil, err
		}
		entries = append(entries, entry{name: more[from], mode: 0o644, content: text})
	}
	return entries, nil
}

// pack makes a zip for Windows and a compressed tar for others, in which all is in
// one folder.
func pack(name string, p platform, entries []entry, when time.Time) (file string, content []byte, err error) {
	inside := make([]entry, len(entries))
	for i, e := range entries {
		inside[i] = e
		inside[i].name = name + "/" + e.name
	}
	var b bytes.Buffer
	if p.os == "windows" {
		err = writeZip(&b, inside, when)
		return name + ".zip", b.Bytes(), err
	}
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return "", nil, err
	}
	if err := writeTar(z, inside, when); err != nil {
		return "", nil, err
	}
	err = z.Close()
	return name + ".tar.gz", b.Bytes(), err
}

func writeZip(w io.Writer, entries []entry, when time.Time) error {
	z := zip.NewWriter(w)
	for _, e := range entries {
		header := &zip.FileHeader{Name: e.name, Method: zip.Deflate, Modified: when}
		header.SetMode(fs.FileMode(e.mode))
		file, err := z.CreateHeader(header)
		if err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
		if _, err := file.Write(e.content); err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
	}
	return z.Close()
}
