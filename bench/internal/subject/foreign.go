package subject

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"text/template"

	"sigs.k8s.io/yaml"

	"github.com/culvertdev/culvert/bench/internal/load"
	"github.com/culvertdev/culvert/bench/internal/process"
	"github.com/culvertdev/culvert/bench/internal/report"
)

// Foreign is somebody else's tunnel, as a file describes it (docs/performance.md
// has an example). Texts marked as templates are text/template with
//
//	{{.Service}} {{.Host}} {{.Port}}  the service, as host:port and its parts
//	{{.Web}}                          the trivial HTTPS service, as host:port
//	{{.Near}} {{.Far}}                addresses of the two sides
//	{{.Cert}} {{.Key}} {{.CA}}        files of a key pair for both sides
//	{{.Dir}}                          the tunnel's own folder
//	{{port "name"}}                   a free TCP port, the same for the same name
type Foreign struct {
	// Called is the subject's name in the results.
	Called string `json:"name"`
	// Files are written into the folder first: name to template.
	Files map[string]string `json:"files,omitempty"`
	// Processes are started in this order.
	Processes []ForeignProcess `json:"processes"`
	// TCP is the address of a port that leads to the service; a template. Connect
	// is that of an HTTP proxy which takes CONNECT to it. Exactly one is set.
	TCP     string `json:"tcp,omitempty"`
	Connect string `json:"connect,omitempty"`
	// Web is a URL that leads to the trivial service; a template. WebCA is the file
	// that verifies it, default that of the key pair.
	Web   string `json:"web,omitempty"`
	WebCA string `json:"webCA,omitempty"`
	// WebHeader is sent with requests.
	WebHeader map[string]string `json:"webHeader,omitempty"`
}

// ForeignProcess is one process of a tunnel.
type ForeignProcess struct {
	Name string `json:"name"`
	// Command is the program and its arguments, each a template.
	Command []string `json:"command"`
	// Hub marks the one whose memory is that of the hub. It runs beside the client;
	// Near says so of others. The rest runs beside the service.
	Hub  bool `json:"hub,omitempty"`
	Near bool `json:"near,omitempty"`
}

// LoadForeign reads and checks a file.
func LoadForeign(file string) (*Foreign, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("tunnel file: %w", err)
	}
	var f Foreign
	if err := yaml.UnmarshalStrict(text, &f); err != nil {
		return nil, fmt.Errorf("tunnel file %s: %w", file, err)
	}
	if err := f.validate(); err != nil {
		return nil, fmt.Errorf("tunnel file %s: %w", file, err)
	}
	return &f, nil
}

var nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]*$`)

func (f *Foreign) validate() error {
	var problems []error
	if !nameForm.MatchString(f.Called) || f.Called == report.Culvert || f.Called == report.Reference {
		problems = append(problems, fmt.Errorf("name: %q: want lower-case letters, digits, '.', '_' and '-', and not %s or %s",
			f.Called, report.Culvert, report.Reference))
	}
	if len(f.Processes) == 0 {
		problems = append(problems, errors.New("processes: at least one is required"))
	}
	for i, p := range f.Processes {
		if len(p.Command) == 0 || !nameForm.MatchString(p.Name) {
			problems = append(problems, fmt.Errorf("processes[%d]: name and command are required", i))
		}
	}
	if (f.TCP == "") == (f.Connect == "") {
		problems = append(problems, errors.New("tcp, connect: give exactly one"))
	}
	for name := range f.Files {
		if filepath.Base(name) != name {
			problems = append(problems, fmt.Errorf("files: %q: want a plain file name", name))
		}
	}
	return errors.Join(problems...)
}

// Name implements [Tunnel].
func (f *Foreign) Name() string { return f.Called }

// Start implements [Tunnel].
func (f *Foreign) Start(ctx context.Context, env *Env) (*Subject, error) {
	return begin(ctx, env, f.Called, func(s *Subject) error {
		fill, err := newFiller(env, s.folder)
		if err != nil {
			return err
		}
		for name, text := range f.Files {
			out, err := fill.text("files."+name, text)
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(s.folder, name), []byte(out), 0o600); err != nil {
				return fmt.Errorf("files: %w", err)
			}
		}
		for _, p := range f.Processes {
			if err := f.run(ctx, env, s, p, fill); err != nil {
				return err
			}
		}
		return f.ways(env, s, fill)
	})
}

func (f *Foreign) run(ctx context.Context, env *Env, s *Subject, p ForeignProcess, fill *filler) error {
	command := make([]string, len(p.Command))
	for i, arg := range p.Command {
		var err error
		if command[i], err = fill.text("processes."+p.Name, arg); err != nil {
			return err
		}
	}
	side := env.Far
	if p.Hub || p.Near {
		side = env.Near
	}
	started, err := s.add(ctx, side, process.Spec{Name: p.Name, Command: command})
	if err == nil && p.Hub {
		s.Hub = started
	}
	return err
}

func (f *Foreign) ways(env *Env, s *Subject, fill *filler) error {
	tcp, err1 := fill.text("tcp", f.TCP)
	proxy, err2 := fill.text("connect", f.Connect)
	web, err3 := fill.text("web", f.Web)
	ca, err4 := fill.text("webCA", f.WebCA)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return err
	}
	s.Dial = load.Connect(proxy, env.Service.TCP)
	if tcp != "" {
		s.Dial = load.Port(tcp)
	}
	if web == "" {
		return nil
	}
	roots := env.Roots
	if ca != "" {
		var err error
		if roots, err = trustedPool(ca); err != nil {
			return err
		}
	}
	s.Web = &load.Web{URL: web, Roots: roots, Header: http.Header{}}
	for name, value := range f.WebHeader {
		s.Web.Header.Set(name, value)
	}
	return nil
}

// filler fills in templates.
type filler struct {
	values map[string]string
	ports  map[string]int
}

func newFiller(env *Env, dir string) (*filler, error) {
	host, port, err := net.SplitHostPort(env.Service.TCP)
	if err != nil {
		return nil, fmt.Errorf("service: %w", err)
	}
	return &filler{ports: map[string]int{}, values: map[string]string{
		"Service": env.Service.TCP, "Host": host, "Port": port, "Web": env.Service.Web, "Dir": dir,
		"Near": env.Near.Host, "Far": env.Far.Host, "Cert": env.Cert, "Key": env.Key, "CA": env.CA,
	}}, nil
}

func (f *filler) text(field, text string) (string, error) {
	t, err := template.New(field).Option("missingkey=error").Funcs(template.FuncMap{"port": f.port}).Parse(text)
	if err != nil {
		return "", fmt.Errorf("%s: %w", field, err)
	}
	var out bytes.Buffer
	if err := t.Execute(&out, f.values); err != nil {
		return "", fmt.Errorf("%s: %w", field, err)
	}
	return out.String(), nil
}

// port returns a port that was free when its name was first seen.
func (f *filler) port(name string) (int, error) {
	if n, ok := f.ports[name]; ok {
		return n, nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("free port: %w", err)
	}
	n := l.Addr().(*net.TCPAddr).Port //nolint:forcetypeassert // a TCP listener has no other
	f.ports[name] = n
	return n, l.Close()
}
