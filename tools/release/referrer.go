package main

import (
	"bytes"
	"encoding/json"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// emptyConfig and emptyType are the config of an artifact that has none
// (https://specs.opencontainers.org/image-spec/manifest/#guidance-for-an-empty-descriptor).
const (
	emptyConfig = "{}"
	emptyType   = "application/vnd.oci.empty.v1+json"
)

// referrer is an artifact with one blob that says something about an image: a
// registry lists it among the image's referrers.
type referrer struct {
	manifest []byte
	blob     v1.Layer
}

// newReferrer makes one. Registries and layouts take it as an image.
func newReferrer(about v1.Image, kind string, content []byte, annotations map[string]string) (v1.Image, error) {
	subject, err := partial.Descriptor(about)
	if err != nil {
		return nil, fmt.Errorf("referrer: %w", err)
	}
	blob := static.NewLayer(content, types.MediaType(kind))
	described, err := partial.Descriptor(blob)
	if err != nil {
		return nil, fmt.Errorf("referrer: %w", err)
	}
	config, size, err := v1.SHA256(bytes.NewReader([]byte(emptyConfig)))
	if err != nil {
		return nil, fmt.Errorf("referrer: %w", err)
	}
	manifest, err := json.Marshal(v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1, ArtifactType: kind,
		Config:      v1.Descriptor{MediaType: emptyType, Digest: config, Size: size},
		Layers:      []v1.Descriptor{*described},
		Subject:     &v1.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size},
		Annotations: annotations,
	})
	if err != nil {
		return nil, fmt.Errorf("referrer: %w", err)
	}
	return partial.CompressedToImage(&referrer{manifest: manifest, blob: blob})
}

// MediaType implements [partial.CompressedImageCore].
func (r *referrer) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }

// RawManifest implements [partial.CompressedImageCore].
func (r *referrer) RawManifest() ([]byte, error) { return r.manifest, nil }

// RawConfigFile implements [partial.CompressedImageCore].
func (r *referrer) RawConfigFile() ([]byte, error) { return []byte(emptyConfig), nil }

// LayerByDigest implements [partial.CompressedImageCore].
func (r *referrer) LayerByDigest(digest v1.Hash) (partial.CompressedLayer, error) {
	own, err := r.blob.Digest()
	if err != nil {
		return nil, err
	}
	if digest != own {
		return nil, fmt.Errorf("referrer: it has no blob %v", digest)
	}
	return r.blob, nil
}
