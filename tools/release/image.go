package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const (
	// registry is where images are published; the layout has the full name.
	registry  = "ghcr.io/culvertdev/"
	sourceURL = "https://github.com/culvertdev/culvert"
)

// imagePlatforms are those that an index has.
var imagePlatforms = []string{"linux/amd64", "linux/arm64"}

// titles are what images are, for people who look at one in a registry.
var titles = map[string]string{
	"culvert-hub":   "The hub that callers and agents of a Culvert mesh reach",
	"culvert-agent": "The agent that connects a private network to a Culvert hub",
	"culvert":       "The command line of Culvert",
}

// ports are what a program listens on by default.
var ports = map[string]map[string]struct{}{"culvert-hub": {"8443/tcp": {}}}

// writeImages builds an OCI layout for each image below dir, with its bills of
// materials as artifacts that refer to it, and as files beside it. out gets a line
// "NAME DIGEST" for each image.
func writeImages(ctx context.Context, b builder, dir string, names []string, platforms []platform, out io.Writer) error {
	for _, name := range names {
		if !slices.Contains(programs, name) {
			return fmt.Errorf("--name: %q is not one of %s", name, strings.Join(programs, ", "))
		}
	}
	built := map[string][]binary{}
	for _, p := range platforms {
		binaries, err := b.build(ctx, p, names)
		if err != nil {
			return err
		}
		for _, one := range binaries {
			built[one.program] = append(built[one.program], one)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	for _, name := range names {
		digest, err := b.writeImage(ctx, dir, name, built[name])
		if err != nil {
			return fmt.Errorf("image %s: %w", name, err)
		}
		if _, err := fmt.Fprintf(out, "%s%s:%s %v\n", registry, name, b.source.tag(), digest); err != nil {
			return err
		}
	}
	return nil
}

// writeImage writes the layout of one image and returns the digest of its index.
func (b builder) writeImage(ctx context.Context, dir, name string, binaries []binary) (v1.Hash, error) {
	base, err := baseEntries()
	if err != nil {
		return v1.Hash{}, err
	}
	baseLayer, err := layer(base, b.source.time)
	if err != nil {
		return v1.Hash{}, err
	}
	index, ok := mutate.Annotations(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), b.labels(name)).(v1.ImageIndex)
	if !ok {
		return v1.Hash{}, errors.New("an index with annotations is no index")
	}
	var boms []v1.Image
	for _, one := range binaries {
		image, err := b.image(ctx, one, baseLayer)
		if err != nil {
			return v1.Hash{}, err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: one.platform.os, Architecture: one.platform.arch}},
		})
		text, err := sbom(name, b.source, []binary{one})
		if err != nil {
			return v1.Hash{}, err
		}
		if err := writeBeside(dir, fmt.Sprintf("%s-%s-%s.cdx.json", name, one.platform.os, one.platform.arch), text); err != nil {
			return v1.Hash{}, err
		}
		bom, err := newReferrer(image, sbomType, text, map[string]string{"org.opencontainers.image.created": b.created()})
		if err != nil {
			return v1.Hash{}, err
		}
		boms = append(boms, bom)
	}
	path, err := layout.Write(filepath.Join(dir, name), empty.Index)
	if err != nil {
		return v1.Hash{}, err
	}
	// What tools select by: skopeo and oras the first, containerd the second.
	named := layout.WithAnnotations(map[string]string{
		"org.opencontainers.image.ref.name": b.source.tag(),
		"io.containerd.image.name":          registry + name + ":" + b.source.tag(),
	})
	if err := path.AppendIndex(index, named); err != nil {
		return v1.Hash{}, err
	}
	for _, bom := range boms {
		if err := path.AppendImage(bom); err != nil {
			return v1.Hash{}, err
		}
	}
	return index.Digest()
}

func writeBeside(dir, name string, text []byte) error {
	return errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, name), text, 0o644)) //nolint:gosec // for everybody
}

func (b builder) created() string { return b.source.time.Format(time.RFC3339) }

// labels are those of https://specs.opencontainers.org/image-spec/annotations/.
func (b builder) labels(name string) map[string]string {
	const prefix = "org.opencontainers.image."
	return map[string]string{
		prefix + "title": name, prefix + "description": titles[name], prefix + "version": b.source.version,
		prefix + "revision": b.source.revision, prefix + "created": b.created(), prefix + "licenses": "Apache-2.0",
		prefix + "source": sourceURL, prefix + "url": sourceURL, prefix + "documentation": sourceURL + "/blob/main/docs/install.md",
		prefix + "vendor": "Culvert",
	}
}

// image is that of one program for one platform.
func (b builder) image(ctx context.Context, one binary, base v1.Layer) (v1.Image, error) {
	texts, err := b.texts(ctx, one.platform, []string{one.program})
	if err != nil {
		return nil, err
	}
	own, err := layer(programEntries(one.program, one.content, texts), b.source.time)
	if err != nil {
		return nil, err
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	history := func(what string) v1.History {
		return v1.History{Created: v1.Time{Time: b.source.time}, CreatedBy: "make image", Comment: what}
	}
	image, err = mutate.Append(image,
		mutate.Addendum{Layer: base, History: history("user, CA certificates and folders"), MediaType: types.OCILayer},
		mutate.Addendum{Layer: own, History: history(one.program), MediaType: types.OCILayer},
	)
	if err != nil {
		return nil, err
	}
	file, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = one.platform.os, one.platform.arch
	file.Created = v1.Time{Time: b.source.time}
	file.Config = v1.Config{
		Entrypoint:   []string{"/" + one.program},
		User:         fmt.Sprintf("%d:%d", nonroot, nonroot),
		WorkingDir:   "/",
		Env:          []string{"PATH=/"},
		ExposedPorts: ports[one.program],
		Labels:       b.labels(one.program),
	}
	return mutate.ConfigFile(image, file)
}

// texts are what has to go with binaries.
func (b builder) texts(ctx context.Context, p platform, names []string) ([]entry, error) {
	licences, err := b.licences(ctx, p, names)
	if err != nil {
		return nil, err
	}
	entries := []entry{{name: "THIRD_PARTY_LICENSES", mode: 0o644, content: licences}}
	for _, name := range []string{"LICENSE", "NOTICE"} {
		text, err := os.ReadFile(filepath.Join(b.root, name))
		if err != nil {
			return nil, err
		}
		entries = append(entries, entry{name: name, mode: 0o644, content: text})
	}
	return entries, nil
}
