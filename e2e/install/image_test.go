package install

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/x509"
	"debug/elf"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/culvertdev/culvert/e2e/testbed"
)

var programs = []string{"culvert-hub", "culvert-agent", "culvert"}

// agentLimit is what the layers of an agent's image may take as they are stored and
// transferred, in bytes.
const agentLimit = 30 << 20

// index returns the manifest of a layout, and the image's index in it.
func index(t *testing.T, which, name string) (*v1.IndexManifest, v1.ImageIndex) {
	t.Helper()
	top, err := layout.ImageIndexFromPath(built(which, "images", name))
	must(t, err)
	manifest, err := top.IndexManifest()
	must(t, err)
	inner, err := top.ImageIndex(manifest.Manifests[0].Digest)
	must(t, err)
	return manifest, inner
}

// image returns that for a platform.
func image(t *testing.T, which, name, platform string) v1.Image {
	t.Helper()
	_, inner := index(t, which, name)
	manifest, err := inner.IndexManifest()
	must(t, err)
	for _, m := range manifest.Manifests {
		if m.Platform.String() == platform {
			found, err := inner.Image(m.Digest)
			must(t, err)
			return found
		}
	}
	t.Fatalf("%s has no image for %s", name, platform)
	return nil
}

func TestLayout(t *testing.T) {
	for _, name := range programs {
		t.Run(name+": the layout is what the specification says, and the image runs as a number that is not root's", func(t *testing.T) {
			top, inner := index(t, "first", name)
			must(t, validate.Index(inner))
			if ref := top.Manifests[0].Annotations["org.opencontainers.image.ref.name"]; ref != version {
				t.Errorf("the layout calls the image %q, want %s", ref, version)
			}
			manifest, err := inner.IndexManifest()
			must(t, err)
			var platforms []string
			for _, m := range manifest.Manifests {
				platforms = append(platforms, m.Platform.String())
			}
			if !slices.Equal(platforms, imagePlatforms) {
				t.Errorf("platforms %v, want %v", platforms, imagePlatforms)
			}
			for _, platform := range platforms {
				file, err := image(t, "first", name, platform).ConfigFile()
				must(t, err)
				c := file.Config
				if c.User != "65532:65532" || !slices.Equal(c.Entrypoint, []string{"/" + name}) || file.OS+"/"+file.Architecture != platform {
					t.Errorf("%s: user %q, entrypoint %v, for %s/%s", platform, c.User, c.Entrypoint, file.OS, file.Architecture)
				}
				if _, ok := c.ExposedPorts["8443/tcp"]; ok != (name == "culvert-hub") {
					t.Errorf("%s: exposed ports %v", platform, c.ExposedPorts)
				}
				for label, want := range map[string]string{"version": version, "revision": revision, "created": "2023-11-14T22:13:20Z", "licenses": "Apache-2.0"} {
					if got := c.Labels["org.opencontainers.image."+label]; got != want {
						t.Errorf("%s: label %s is %q, want %q", platform, label, got, want)
					}
				}
				if file.Created.Unix() != 1700000000 {
					t.Errorf("%s: created %v", platform, file.Created)
				}
			}
		})
		t.Run(name+": every image has a bill of materials that refers to it and names what is linked into it", func(t *testing.T) {
			top, inner := index(t, "first", name)
			images, err := inner.IndexManifest()
			must(t, err)
			if len(top.Manifests) != 1+len(images.Manifests) {
				t.Fatalf("%d manifests in the layout, want the index and one for each of %d images", len(top.Manifests), len(images.Manifests))
			}
			path := layout.Path(built("first", "images", name))
			for i, m := range images.Manifests {
				bom, err := path.Image(top.Manifests[i+1].Digest)
				must(t, err)
				manifest, err := bom.Manifest()
				must(t, err)
				if manifest.Subject == nil || manifest.Subject.Digest != m.Digest || manifest.ArtifactType != "application/vnd.cyclonedx+json" {
					t.Fatalf("artifact %s is about %v, want %v", manifest.ArtifactType, manifest.Subject, m.Digest)
				}
				text, err := path.Bytes(manifest.Layers[0].Digest)
				must(t, err)
				checkBOM(t, text, name)
			}
		})
	}
}

// checkBOM looks for what every one of Culvert's programs has in it.
func checkBOM(t *testing.T, text []byte, name string) {
	t.Helper()
	var bom struct {
		Format   string `json:"bomFormat"`
		Metadata struct {
			Component struct{ Name, Version string }
		}
		Components []struct{ Name, Version, Purl string }
	}
	must(t, json.Unmarshal(text, &bom))
	if bom.Format != "CycloneDX" || bom.Metadata.Component.Name != name || bom.Metadata.Component.Version != version {
		t.Errorf("%s %s: it is about %+v", bom.Format, name, bom.Metadata.Component)
	}
	found := map[string]string{}
	for _, c := range bom.Components {
		found[c.Name] = c.Version
		if c.Purl != "pkg:golang/"+strings.ToLower(c.Name)+"@"+strings.ReplaceAll(c.Version, "+", "%2B") {
			t.Errorf("%s: package URL %s", c.Name, c.Purl)
		}
	}
	if found["google.golang.org/grpc"] == "" || "go"+found["std"] != runtime.Version() || len(found) < 20 {
		t.Errorf("%s: %d components, grpc %q, std %q", name, len(found), found["google.golang.org/grpc"], found["std"])
	}
}

func TestReproducible(t *testing.T) {
	t.Run("F9: the images of two builds, in two folders, are the same to the byte", func(t *testing.T) {
		for _, name := range programs {
			_, first := index(t, "first", name)
			_, second := index(t, "second", name)
			a, err := first.Digest()
			must(t, err)
			b, err := second.Digest()
			must(t, err)
			t.Logf("%s: %v", name, a)
			if a != b {
				t.Errorf("%s: %v in one folder, %v in the other", name, a, b)
			}
			if x, y := read(t, built("first", "images", name, "index.json")), read(t, built("second", "images", name, "index.json")); x != y {
				t.Errorf("%s: index.json differs: %s and %s", name, x, y)
			}
		}
	})
}

func TestSize(t *testing.T) {
	for _, name := range programs {
		for _, platform := range imagePlatforms {
			one := image(t, "first", name, platform)
			layers, err := one.Layers()
			must(t, err)
			stored, unpacked := int64(0), int64(0)
			for _, l := range layers {
				size, err := l.Size()
				must(t, err)
				stored += size
				content, err := l.Uncompressed()
				must(t, err)
				n, err := io.Copy(io.Discard, content)
				must(t, errors.Join(err, content.Close()))
				unpacked += n
			}
			t.Logf("%s for %s: %.1f MB compressed, %.1f MB unpacked", name, platform, float64(stored)/1e6, float64(unpacked)/1e6)
			if name == "culvert-agent" && stored > agentLimit {
				t.Errorf("the agent's image takes %d bytes, the limit is %d", stored, agentLimit)
			}
		}
	}
}

// unpack makes a root of an image for this machine, as a runtime does.
func unpack(t *testing.T, name string) string {
	t.Helper()
	root := folder(t, filepath.Join(t.TempDir(), name), 0o755, 0, 0)
	content := mutate.Extract(image(t, "first", name, "linux/"+runtime.GOARCH))
	reader := tar.NewReader(content)
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
		path := filepath.Join(root, filepath.FromSlash(header.Name))
		switch header.Typeflag {
		case tar.TypeDir:
			must(t, os.MkdirAll(path, 0o700))
		case tar.TypeReg:
			file, err := os.Create(path)
			must(t, err)
			_, err = io.Copy(file, reader)
			must(t, errors.Join(err, file.Close()))
		default:
			t.Fatalf("%s: a %c has no place in an image", header.Name, header.Typeflag)
		}
		own(t, path, header.Uid, header.Gid)
		must(t, os.Chmod(path, header.FileInfo().Mode().Perm()|header.FileInfo().Mode()&os.ModeSticky))
	}
	must(t, content.Close())
	return root
}

// container is a jail as a runtime makes one of an image: its user, its environment
// and its entrypoint.
func container(t *testing.T, root, name string, args ...string) jail {
	t.Helper()
	file, err := image(t, "first", name, "linux/"+runtime.GOARCH).ConfigFile()
	must(t, err)
	return jail{Root: root, Args: append(slices.Clone(file.Config.Entrypoint), args...), Env: file.Config.Env}
}

func TestImagesRun(t *testing.T) {
	ctx := within(t, 4*time.Minute)
	dir := t.TempDir()
	roots := map[string]string{}
	for _, name := range programs {
		roots[name] = unpack(t, name)
	}
	t.Run("F9: the binaries are static", func(t *testing.T) {
		for _, name := range programs {
			file, err := elf.Open(filepath.Join(roots[name], name))
			must(t, err)
			for _, p := range file.Progs {
				if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
					t.Errorf("%s has a program header %v", name, p.Type)
				}
			}
			must(t, file.Close())
		}
	})
	t.Run("the CAs are whole, and none has run out", func(t *testing.T) {
		text := []byte(read(t, filepath.Join(roots["culvert-agent"], "etc", "ssl", "certs", "ca-certificates.crt")))
		count := 0
		for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
			cert, err := x509.ParseCertificate(block.Bytes)
			must(t, err)
			if !cert.IsCA {
				t.Errorf("%v is no CA", cert.Subject)
			}
			count++
		}
		if count < 80 {
			t.Errorf("%d CAs", count)
		}
		t.Logf("%d CAs", count)
	})

	hubState := folder(t, filepath.Join(dir, "hub-state"), 0o700, nonroot, nonroot)
	agentState := folder(t, filepath.Join(dir, "agent-state"), 0o700, nonroot, nonroot)
	hubConfig := folder(t, filepath.Join(dir, "hub-config"), 0o750, 0, readers)
	agentConfig := folder(t, filepath.Join(dir, "agent-config"), 0o750, 0, readers)
	secret(t, filepath.Join(hubConfig, "tokens.csv"), tokensFile)
	port, err := testbed.ReservePort(nil, testbed.HubAddress)
	must(t, err)
	t.Cleanup(port.Close)

	hubJail := container(t, roots["culvert-hub"], "culvert-hub", "--state", "/var/lib/culvert", "--listen", port.Addr(),
		"--tls-name", testbed.HubAddress.String(), "--token-file", "/etc/culvert/tokens.csv")
	hubJail.Mounts, hubJail.Writable = map[string]string{"/etc/culvert": hubConfig}, map[string]string{"/var/lib/culvert": hubState}
	hubJail.Groups = []int{readers}
	cli := container(t, roots["culvert"], "culvert", "token", "create", "--state", "/var/lib/culvert", "--cluster", clusterName, "-o", "json")
	cli.Writable = hubJail.Writable
	agentJail := container(t, roots["culvert-agent"], "culvert-agent", "join",
		"--token-file", "/etc/culvert/join-token", "--kubeconfig", "/etc/culvert/kubeconfig")
	agentJail.Mounts, agentJail.Writable = map[string]string{"/etc/culvert": agentConfig}, map[string]string{"/var/lib/culvert-agent": agentState}
	agentJail.Groups = []int{readers}

	t.Run("D21: hub, command line and agent run from their images, unprivileged and on a read-only root, and a request goes through", func(t *testing.T) {
		hub, err := testbed.StartProcess(ctx, hubJail.process(t, "image-hub", testbed.Dir()))
		must(t, err)
		t.Cleanup(func() { must(t, hub.Kill9()) })
		ca := filepath.Join(hubState, "pki", "serving-ca.crt")
		must(t, testbed.Poll(ctx, "the hub's socket", func(context.Context) error {
			_, err := os.Stat(filepath.Join(hubState, "admin.sock"))
			return err
		}))
		secret(t, filepath.Join(agentConfig, "join-token"), joinToken(t, cli.run(ctx, t)))
		secret(t, filepath.Join(agentConfig, "kubeconfig"), read(t, the.kubeconfig))
		agent, err := testbed.StartProcess(ctx, agentJail.process(t, "image-agent", testbed.Dir()))
		must(t, err)
		t.Cleanup(func() { must(t, agent.Kill9()) })
		must(t, testbed.Poll(ctx, "a request through the tunnel", func(ctx context.Context) error { return throughTunnel(ctx, port.Addr(), ca) }))
		for name, p := range map[string]*testbed.Process{"hub": hub, "agent": agent} {
			user, capabilities := ids(t, p)
			if want := "65532"; user != want && manyUsers || strings.Trim(capabilities, "0") != "" {
				t.Errorf("the %s runs as user %s with capabilities %s", name, user, capabilities)
			}
		}
		must(t, agent.Stop(ctx))
		must(t, hub.Stop(ctx))
	})
	t.Run("what runs on a read-only root cannot write to it", func(t *testing.T) {
		other := hubJail
		other.Args = append(slices.Clone(hubJail.Args[:1]), "--state", "/tmp/state", "--token-file", "/etc/culvert/tokens.csv", "--listen", port.Addr())
		p, err := testbed.StartProcess(ctx, other.process(t, "image-hub-elsewhere", testbed.Dir()))
		must(t, err)
		select {
		case <-p.Done():
		case <-ctx.Done():
			must(t, errors.Join(ctx.Err(), p.Kill9()))
		}
		if log := read(t, p.Log()); !strings.Contains(log, "read-only file system") {
			t.Errorf("a state folder outside of every volume: %s", log)
		}
	})
}

// joinToken takes the token out of what culvert token create prints.
func joinToken(t *testing.T, text string) string {
	t.Helper()
	var made struct{ Token string }
	if err := json.Unmarshal(bytes.TrimSpace([]byte(text)), &made); err != nil || made.Token == "" {
		t.Fatalf("culvert token create printed %d bytes without a token: %v", len(text), err)
	}
	return made.Token
}
