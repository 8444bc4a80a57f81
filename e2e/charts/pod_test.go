package charts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// accountFolder is where Kubernetes mounts the token of a pod's account.
const accountFolder = "/var/run/secrets/kubernetes.io/serviceaccount"

// podConfig says which pod to run.
type podConfig struct {
	name      string
	cluster   *testbed.Cluster
	namespace string
	workload  string // such as deployment/culvert-agent
	binary    string // the image's one file
	// args are added to those of the container.
	args []string
	// volumes is the pod before, whose persistent volume this one gets.
	volumes *pod
}

// pod is a pod of a workload of the API server, run as a process. Its root is a
// folder that has the image's binary and what the volumes say, and nothing else, as
// the images are.
type pod struct {
	cfg     podConfig
	spec    corev1.PodSpec
	root    string
	process *testbed.Process
	before  []string // what is in the root at the start
}

// startPod makes a pod's file system and starts its container. It is ready when the
// readiness probe says so.
func startPod(ctx context.Context, cfg podConfig) (_ *pod, err error) {
	p := &pod{cfg: cfg}
	if p.root, err = os.MkdirTemp(testbed.Dir(), cfg.name+"-"); err != nil {
		return nil, err
	}
	text, err := cfg.cluster.Kubectl(ctx, "-n", cfg.namespace, "get", cfg.workload, "-o", "json")
	if err != nil {
		return nil, err
	}
	var workload struct {
		Spec struct {
			Template corev1.PodTemplateSpec `json:"template"`
		} `json:"spec"`
	}
	if err := json.Unmarshal([]byte(text), &workload); err != nil {
		return nil, err
	}
	p.spec = workload.Spec.Template.Spec
	if err := os.Link(bin(cfg.binary), filepath.Join(p.root, cfg.binary)); err != nil {
		return nil, err
	}
	if err := p.mount(ctx); err != nil {
		return nil, err
	}
	if p.before, err = p.written(); err != nil {
		return nil, err
	}
	server, err := url.Parse(cfg.cluster.URL)
	if err != nil {
		return nil, err
	}
	container := p.spec.Containers[0]
	env := []string{"KUBERNETES_SERVICE_HOST=" + server.Hostname(), "KUBERNETES_SERVICE_PORT=" + server.Port()}
	for _, e := range container.Env {
		env = append(env, e.Name+"="+e.Value)
	}
	p.process, err = testbed.StartProcess(ctx, testbed.ProcessConfig{
		Name: filepath.Base(p.root), Path: "chroot", LogDir: testbed.Dir(), Namespace: cfg.cluster.Namespace, Env: env,
		Args:  slices.Concat([]string{p.root, "/" + cfg.binary}, container.Command, container.Args, cfg.args),
		Ready: p.ready,
	})
	return p, err
}

// ready asks all three probes, of which readiness says the most.
func (p *pod) ready(ctx context.Context) error {
	c := p.spec.Containers[0]
	return errors.Join(p.probe(ctx, c.StartupProbe), p.probe(ctx, c.LivenessProbe), p.probe(ctx, c.ReadinessProbe))
}

func (p *pod) probe(ctx context.Context, probe *corev1.Probe) error {
	port := ""
	for _, named := range p.spec.Containers[0].Ports {
		if named.Name == probe.HTTPGet.Port.StrVal {
			port = fmt.Sprint(named.ContainerPort)
		}
	}
	for _, arg := range p.cfg.args { // two pods share an address here
		if at, ok := strings.CutPrefix(arg, "--metrics-listen=:"); ok {
			port = at
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:"+port+probe.HTTPGet.Path, nil)
	if err != nil {
		return err
	}
	transport := &http.Transport{DialContext: p.cfg.cluster.Namespace.Dial}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return err
	}
	if err := resp.Body.Close(); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", probe.HTTPGet.Path, resp.Status)
	}
	return nil
}

// stop ends the process as Kubernetes does, and looks for what it has written
// where the root is read-only.
func (p *pod) stop() error {
	if p.process == nil {
		return nil
	}
	if err := p.process.Stop(context.Background()); err != nil {
		return err
	}
	after, err := p.written()
	if err == nil && !slices.Equal(p.before, after) {
		err = fmt.Errorf("%s: the read-only part of the file system has changed from %q to %q", p.cfg.name, p.before, after)
	}
	return err
}

// mount gives each volume the content that it has at the API server now, in the way
// of a kubelet.
func (p *pod) mount(ctx context.Context) error {
	volumes := map[string]corev1.Volume{}
	for _, v := range p.spec.Volumes {
		volumes[v.Name] = v
	}
	for _, m := range p.spec.Containers[0].VolumeMounts {
		if m.SubPath != "" {
			return fmt.Errorf("%s: a subPath is not updated", m.MountPath)
		}
		v, ok := volumes[m.Name]
		if !ok {
			return fmt.Errorf("%s: there is no volume %s", m.MountPath, m.Name)
		}
		dir := filepath.Join(p.root, m.MountPath)
		if before := p.cfg.volumes; before != nil && v.PersistentVolumeClaim != nil {
			if err := errors.Join(os.MkdirAll(filepath.Dir(dir), 0o770), os.Rename(filepath.Join(before.root, m.MountPath), dir)); err != nil {
				return err
			}
			p.cfg.volumes = nil // it is there from now on
			continue
		}
		if v.EmptyDir != nil || v.PersistentVolumeClaim != nil {
			if err := os.MkdirAll(dir, 0o770); err != nil {
				return err
			}
			continue
		}
		files, err := p.content(ctx, v)
		if err != nil {
			return err
		}
		if err := swap(dir, files); err != nil {
			return err
		}
	}
	if automount := p.spec.AutomountServiceAccountToken; automount != nil && !*automount {
		return nil
	}
	token, err := p.cfg.cluster.CreateToken(ctx, p.cfg.namespace, p.spec.ServiceAccountName)
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(p.cfg.cluster.CAFile)
	if err != nil {
		return err
	}
	return swap(filepath.Join(p.root, accountFolder), map[string][]byte{"token": []byte(token), "ca.crt": ca, "namespace": []byte(p.cfg.namespace)})
}

// content reads what a volume has.
func (p *pod) content(ctx context.Context, v corev1.Volume) (map[string][]byte, error) {
	files := map[string][]byte{}
	switch {
	case v.ConfigMap != nil:
		var object corev1.ConfigMap
		if err := p.read(ctx, "configmap/"+v.ConfigMap.Name, &object); err != nil {
			return nil, err
		}
		for name, text := range object.Data {
			files[name] = []byte(text)
		}
	case v.Secret != nil:
		var object corev1.Secret
		if err := p.read(ctx, "secret/"+v.Secret.SecretName, &object); err != nil {
			return nil, err
		}
		files = object.Data
	case v.Projected != nil:
		for _, source := range v.Projected.Sources {
			if source.ServiceAccountToken == nil {
				return nil, fmt.Errorf("volume %s: an unknown source", v.Name)
			}
			token, err := p.cfg.cluster.CreateToken(ctx, p.cfg.namespace, p.spec.ServiceAccountName, "--audience="+source.ServiceAccountToken.Audience)
			if err != nil {
				return nil, err
			}
			files[source.ServiceAccountToken.Path] = []byte(token)
		}
	default:
		return nil, fmt.Errorf("volume %s: an unknown kind", v.Name)
	}
	return files, nil
}

func (p *pod) read(ctx context.Context, object string, into any) error {
	text, err := p.cfg.cluster.Kubectl(ctx, "-n", p.cfg.namespace, "get", object, "-o", "json")
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(text), into)
}

// swap replaces what a folder has at once, by a link: as a kubelet does it.
func swap(dir string, files map[string][]byte) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	fresh, err := os.MkdirTemp(dir, "..")
	if err != nil {
		return err
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(fresh, name), data, 0o440); err != nil {
			return err
		}
	}
	old, err := os.Readlink(filepath.Join(dir, "..data"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(filepath.Base(fresh), filepath.Join(dir, "..data_tmp")); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")); err != nil {
		return err
	}
	for name := range files {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if old == "" {
		return nil
	}
	return os.RemoveAll(filepath.Join(dir, old))
}

// written lists what is in the root, outside of volumes.
func (p *pod) written() ([]string, error) {
	mounted := []string{accountFolder}
	for _, m := range p.spec.Containers[0].VolumeMounts {
		mounted = append(mounted, m.MountPath)
	}
	var all []string
	err := filepath.WalkDir(p.root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		inside := "/" + strings.TrimPrefix(strings.TrimPrefix(path, p.root), "/")
		if slices.Contains(mounted, inside) {
			return fs.SkipDir
		}
		all = append(all, inside)
		return nil
	})
	return all, err
}

// metrics reads the pod's metrics.
func (p *pod) metrics(ctx context.Context) (string, error) {
	transport := &http.Transport{DialContext: p.cfg.cluster.Namespace.Dial}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:9090/metrics", nil)
	if err != nil {
		return "", err
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return string(text), err
}
