package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/strvals"
	"sigs.k8s.io/yaml"

	"github.com/culvertdev/culvert/cmd/internal/cli"
	"github.com/culvertdev/culvert/deploy/charts"
	"github.com/culvertdev/culvert/internal/version"
)

func manifestsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "manifests",
		Short: "Print the Kubernetes objects of a hub or an agent",
		Long: `Manifests prints what helm template prints for the charts of this release, for
people without Helm. The values are those of the charts. The images are those of the
same release as this program, unless image.tag or image.digest says otherwise.`,
		Example: "  culvert manifests hub --set hub.publicHost=hub.example.com",
	}
	cmd.AddCommand(
		manifestsOf("hub", charts.Hub, "Print the objects of a hub", `  culvert manifests hub --namespace culvert-hub --create-namespace \
    --set hub.publicHost=hub.example.com | kubectl apply --server-side -f -`),
		manifestsOf("agent", charts.Agent, "Print the objects of an agent", `  culvert manifests agent --namespace culvert-agent --create-namespace \
    --set-file join.token=join.token | kubectl apply --server-side -f -`),
	)
	return cmd
}

// manifestFlags are those of culvert manifests.
type manifestFlags struct {
	files, set, setString, setFile []string
	namespace, release             string
	createNamespace, notes         bool
}

func manifestsOf(use, chart, short, example string) *cobra.Command {
	var flags manifestFlags
	cmd := &cobra.Command{
		Use: use, Short: short, Example: example, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return flags.print(cmd, chart) },
	}
	f := cmd.Flags()
	f.StringArrayVarP(&flags.files, "values", "f", nil, "YAML file of values, or - for standard input (repeat; a later one wins)")
	f.StringArrayVar(&flags.set, "set", nil, "value, as PATH=VALUE (repeat; wins over the files)")
	f.StringArrayVar(&flags.setString, "set-string", nil, "value that is a text even where it looks like a number, as PATH=VALUE (repeat)")
	f.StringArrayVar(&flags.setFile, "set-file", nil, "value that is a file's text, as PATH=FILE (repeat)")
	f.StringVarP(&flags.namespace, "namespace", "n", "", "namespace of the objects (default "+chart+"; of an agent with cluster.uid, cluster-UID)")
	f.StringVar(&flags.release, "name", chart, "name of the release, from which those of the objects are made")
	f.BoolVar(&flags.createNamespace, "create-namespace", false, "print the namespace, too, with Pod Security restricted")
	f.BoolVar(&flags.notes, "notes", false, "print the next commands on standard error")
	return cmd
}

func (m *manifestFlags) print(cmd *cobra.Command, chart string) error {
	values, err := m.values(interruptible(cmd.Context(), cmd.InOrStdin()))
	if err != nil {
		return err
	}
	rendered, err := charts.Render(chart, charts.Options{
		Release: m.release, Namespace: m.namespace, Version: version.String(), Values: values,
	})
	if err != nil {
		return err
	}
	text := rendered.Text()
	if m.createNamespace && text != "" {
		text = fmt.Sprintf(namespaceManifest, rendered.Namespace) + text
	}
	if m.notes {
		if _, err := io.WriteString(cmd.ErrOrStderr(), rendered.Notes); err != nil {
			return err
		}
	}
	_, err = io.WriteString(cmd.OutOrStdout(), text)
	return err
}

// namespaceManifest has the label by which the API server refuses pods that are not
// restricted.
const namespaceManifest = `---
apiVersion: v1
kind: Namespace
metadata:
  name: %s
  labels:
    pod-security.kubernetes.io/enforce: restricted
`

// values puts the flags together, in Helm's order.
func (m *manifestFlags) values(stdin io.Reader) (map[string]any, error) {
	values := map[string]any{}
	for _, file := range m.files {
		text, err := readValues(stdin, file)
		if err != nil {
			return nil, fmt.Errorf("--values %s: %w", file, err)
		}
		values = loader.MergeMaps(values, text)
	}
	for _, one := range m.set {
		if err := strvals.ParseInto(one, values); err != nil {
			return nil, cli.Usagef("--set %s: %w", pathOf(one), err)
		}
	}
	for _, one := range m.setString {
		if err := strvals.ParseIntoString(one, values); err != nil {
			return nil, cli.Usagef("--set-string %s: %w", pathOf(one), err)
		}
	}
	for _, one := range m.setFile {
		read := func(name []rune) (any, error) {
			text, err := os.ReadFile(string(name))
			return string(text), err
		}
		if err := strvals.ParseIntoFile(one, values, read); err != nil {
			return nil, fmt.Errorf("--set-file %s: %w", one, err)
		}
	}
	return values, nil
}

// pathOf leaves out the value, which may be secret.
func pathOf(assignment string) string {
	path, _, _ := strings.Cut(assignment, "=")
	return path
}

func readValues(stdin io.Reader, file string) (map[string]any, error) {
	var text []byte
	var err error
	if file == "-" {
		text, err = io.ReadAll(stdin)
	} else {
		text, err = os.ReadFile(file)
	}
	if err != nil {
		return nil, err
	}
	values := map[string]any{}
	if err := yaml.UnmarshalStrict(text, &values); err != nil {
		return nil, errors.New(strings.TrimPrefix(err.Error(), "error converting YAML to JSON: "))
	}
	return values, nil
}
