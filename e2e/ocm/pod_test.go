package ocm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// mount is a folder as the kubelet makes one of a Secret or ConfigMap: the files are
// links into a folder that is swapped.
type mount struct {
	dir  string
	next int
}

// put swaps in new files.
func (m *mount) put(files map[string][]byte) error {
	m.next++
	data := fmt.Sprintf("..%d", m.next)
	errs := []error{os.MkdirAll(filepath.Join(m.dir, data), 0o755)}
	for name, text := range files {
		errs = append(errs, os.WriteFile(filepath.Join(m.dir, data, name), text, 0o640))
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(m.dir, name)); err != nil && !errors.Is(err, os.ErrExist) {
			errs = append(errs, err)
		}
	}
	temp := filepath.Join(m.dir, "..data_tmp")
	errs = append(errs, os.Symlink(data, temp), os.Rename(temp, filepath.Join(m.dir, "..data")))
	if m.next > 1 {
		errs = append(errs, os.RemoveAll(filepath.Join(m.dir, fmt.Sprintf("..%d", m.next-1))))
	}
	return errors.Join(errs...)
}

// pod is the agent's container with the files that the kubelet gives it and nothing
// else, in a folder that is its root.
type pod struct {
	root      string
	container corev1.Container
	// secrets are the mounts, by the name of the Secret.
	secrets map[string]*mount
	process *testbed.Process
}

// newPod puts together what a Deployment asks for, from the objects of its cluster.
func (w *world) newPod(ctx context.Context, t *testing.T, name string, deployment *appsv1.Deployment) *pod {
	t.Helper()
	spec := deployment.Spec.Template.Spec
	p := &pod{root: filepath.Join(w.dir, name), container: spec.Containers[0], secrets: map[string]*mount{}}
	for _, m := range p.container.VolumeMounts {
		var volume *corev1.Volume
		for i := range spec.Volumes {
			if spec.Volumes[i].Name == m.Name {
				volume = &spec.Volumes[i]
			}
		}
		if volume == nil {
			t.Fatalf("%s is mounted and is no volume", m.Name)
		}
		to := &mount{dir: filepath.Join(p.root, m.MountPath)}
		files := map[string][]byte{}
		switch {
		case volume.Secret != nil:
			var secret corev1.Secret
			w.object(ctx, t, &secret, "secret", deployment.Namespace, volume.Secret.SecretName)
			files = secret.Data
			p.secrets[volume.Secret.SecretName] = to
		case volume.ConfigMap != nil:
			var config corev1.ConfigMap
			w.object(ctx, t, &config, "configmap", deployment.Namespace, volume.ConfigMap.Name)
			for name, text := range config.Data {
				files[name] = []byte(text)
			}
		default:
			t.Fatalf("volume %s is neither a Secret nor a ConfigMap", volume.Name)
		}
		must(t, to.put(files))
	}
	token, err := w.managed.CreateToken(ctx, deployment.Namespace, spec.ServiceAccountName)
	must(t, err)
	ca, err := os.ReadFile(w.managed.CAFile)
	must(t, err)
	account := &mount{dir: filepath.Join(p.root, "/var/run/secrets/kubernetes.io/serviceaccount")}
	must(t, account.put(map[string][]byte{"token": []byte(token), "ca.crt": ca, "namespace": []byte(deployment.Namespace)}))
	// The image's entry point.
	must(t, copyFile(filepath.Join(p.root, "culvert-agent"), w.culvert.Agent))
	return p
}

// object reads one of the managed cluster's objects.
func (w *world) object(ctx context.Context, t *testing.T, into any, kind, namespace, name string) {
	t.Helper()
	out, err := w.managed.Kubectl(ctx, "get", kind, "--namespace", namespace, name, "-o", "json")
	must(t, err)
	must(t, json.Unmarshal([]byte(out), into))
}

// start runs the container's command line, with its environment.
func (p *pod) start(ctx context.Context, t *testing.T, w *world, name string) {
	t.Helper()
	host, port, ok := strings.Cut(strings.TrimPrefix(w.managed.URL, "https://"), ":")
	if !ok {
		t.Fatal(w.managed.URL)
	}
	env := []string{"KUBERNETES_SERVICE_HOST=" + host, "KUBERNETES_SERVICE_PORT=" + port}
	for _, e := range p.container.Env {
		env = append(env, e.Name+"="+e.Value)
	}
	var err error
	p.process, err = testbed.StartProcess(ctx, testbed.ProcessConfig{
		Name: name, Path: "chroot", Args: append([]string{p.root, "/culvert-agent"}, p.container.Args...), Env: env, LogDir: w.dir,
	})
	must(t, err)
	t.Cleanup(func() {
		check(t, p.process.Kill9())
		if text, err := os.ReadFile(p.process.Log()); err == nil && t.Failed() {
			t.Logf("%s: %s", name, text)
		}
	})
}

func (p *pod) stop(t *testing.T) {
	t.Helper()
	check(t, p.process.Stop(t.Context()))
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
