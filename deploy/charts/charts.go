// Package charts holds the Helm charts of hub and agent, and renders them with
// Helm's own engine: what Render returns is what helm template prints. So plain
// manifests and charts have one source.
//
// values.yaml is the one description of a chart's values. The README's table and
// values.schema.json are made from it: go generate ./deploy/charts.
package charts

//go:generate go run ./generate

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/loader/archive"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	releaseutil "helm.sh/helm/v4/pkg/release/v1/util"
	"k8s.io/apimachinery/pkg/util/validation"
)

// Names of the charts.
const (
	Hub   = "culvert-hub"
	Agent = "culvert-agent"
)

// MetricsLabel is what Services have that are for metrics alone.
const MetricsLabel = "culvert.dev/metrics"

//go:embed all:culvert-hub all:culvert-agent
var files embed.FS

// Files returns a chart's folder. The name is [Hub] or [Agent].
func Files(name string) (fs.FS, error) { return fs.Sub(files, name) }

// load reads a chart.
func load(name string) (*chart.Chart, error) {
	if name != Hub && name != Agent {
		return nil, fmt.Errorf("chart %q: there are %s and %s", name, Hub, Agent)
	}
	var all []*archive.BufferedFile
	err := fs.WalkDir(files, name, func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := files.ReadFile(file)
		all = append(all, &archive.BufferedFile{Name: strings.TrimPrefix(file, name+"/"), Data: data})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("chart %s: %w", name, err)
	}
	loaded, err := loader.LoadFiles(all)
	if err != nil {
		return nil, fmt.Errorf("chart %s: %w", name, err)
	}
	return loaded, nil
}

// Options say how to render a chart. The zero value is good.
type Options struct {
	// Release names the release: a DNS label of at most 53 characters. Default the
	// chart's name.
	Release string
	// Namespace is where the objects go. Default: the chart's name; for an agent whose
	// cluster.uid is given, cluster-<uid>.
	Namespace string
	// Version is the release whose images are installed, such as v1.2.3, where the
	// values name no tag. Anything else, such as devel, leaves the chart's own.
	Version string
	// Values are put over those of the chart. They are not changed.
	Values map[string]any
}

// Rendered is what came of a chart.
type Rendered struct {
	// Namespace is where the objects go; none of them is the namespace itself.
	Namespace string
	// Manifests are the objects as YAML, one each, in the order in which Helm
	// installs them.
	Manifests []string
	// Notes are for people, with the next commands.
	Notes string
}

// Text is all objects in one text.
func (r *Rendered) Text() string {
	var text strings.Builder
	for _, manifest := range r.Manifests {
		text.WriteString("---\n" + strings.TrimSpace(manifest) + "\n")
	}
	return text.String()
}

// Render renders a chart. An error says which value is wrong, and what it should
// be.
func Render(name string, o Options) (*Rendered, error) {
	loaded, err := load(name)
	if err != nil {
		return nil, err
	}
	release := common.ReleaseOptions{Name: o.Release, Namespace: o.Namespace, Revision: 1, IsInstall: true}
	if release.Name == "" {
		release.Name = name
	}
	if release.Namespace == "" {
		release.Namespace = namespaceFor(name, o.Values)
	}
	if released.MatchString(o.Version) {
		loaded.Metadata.AppVersion = strings.ReplaceAll(o.Version, "+", "-")
	}
	values, err := util.ToRenderValues(loaded, o.Values, release, common.DefaultCapabilities)
	if err != nil {
		return nil, explain(err)
	}
	if err := checkNames(release); err != nil {
		return nil, err
	}
	texts, err := engine.Render(loaded, values)
	if err != nil {
		return nil, explain(err)
	}
	rendered := &Rendered{Namespace: release.Namespace}
	manifests := map[string]string{}
	for file, text := range texts {
		switch {
		case path.Base(file) == "NOTES.txt":
			rendered.Notes = strings.TrimSpace(text) + "\n"
		case !strings.HasPrefix(path.Base(file), "_"):
			manifests[file] = text
		}
	}
	hooks, sorted, err := releaseutil.SortManifests(manifests, nil, releaseutil.InstallOrder)
	if err != nil {
		return nil, fmt.Errorf("chart %s: %w", name, err)
	}
	if len(hooks) > 0 {
		return nil, fmt.Errorf("chart %s has hooks, which nothing but Helm would run", name)
	}
	for _, manifest := range sorted {
		rendered.Manifests = append(rendered.Manifests, manifest.Content)
	}
	return rendered, nil
}

// released are versions that images have.
var released = regexp.MustCompile(`^v\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+dirty)?$`)

// checkNames refuses what the API server would refuse of every object.
func checkNames(release common.ReleaseOptions) error {
	const longest = 53 // Helm's own bound, which leaves room for what follows the name
	if problems := validation.IsDNS1035Label(release.Name); len(problems) > 0 || len(release.Name) > longest {
		return fmt.Errorf("name: %q cannot name a release: want at most %d lower case letters, digits and dashes that begin with a letter, such as %s", release.Name, longest, Hub)
	}
	if problems := validation.IsDNS1123Label(release.Namespace); len(problems) > 0 {
		return fmt.Errorf("namespace: %q cannot be one: want at most 63 lower case letters, digits and dashes; a cluster.uid of more than 55 needs one of its own", release.Namespace)
	}
	return nil
}

// namespaceFor is the namespace where none is given.
func namespaceFor(name string, values map[string]any) string {
	if cluster, ok := values["cluster"].(map[string]any); ok && name == Agent {
		if uid, ok := cluster["uid"].(string); ok && uid != "" {
			return "cluster-" + uid
		}
	}
	return name
}

var (
	// templateError is how Helm's engine begins what a template says, with places in
	// it that mean nothing to who gives values.
	templateError = regexp.MustCompile(`(?s)^.*(?:error calling fail: |execution error at \([^)]*\): )`)
	schemaError   = regexp.MustCompile(`(?m)^- at '([^']*)': `)
)

// explain leaves out of Helm's errors what is about the charts and not the values.
func explain(err error) error {
	text := templateError.ReplaceAllString(err.Error(), "")
	text = strings.TrimPrefix(text, "values don't meet the specifications of the schema(s) in the following chart(s):\n")
	if problems := schemaError.FindAllStringSubmatchIndex(text, -1); len(problems) > 0 {
		lines := map[string]bool{}
		for i, at := range problems {
			end := len(text)
			if i+1 < len(problems) {
				end = problems[i+1][0]
			}
			field := strings.ReplaceAll(strings.TrimPrefix(text[at[2]:at[3]], "/"), "/", ".")
			if field == "" {
				field = "values"
			}
			lines[field+": "+strings.TrimSpace(text[at[1]:end])] = true
		}
		text = strings.Join(slices.Sorted(maps.Keys(lines)), "\n")
	}
	return errors.New(strings.TrimSpace(text))
}
