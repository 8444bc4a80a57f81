package ocm

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// downloaded runs go mod download -json and returns the module's folder.
func downloaded(cmd *exec.Cmd) (string, error) {
	var got struct{ Dir string }
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, &got)
	}
	if err != nil || got.Dir == "" {
		return "", fmt.Errorf("%v: %w: %s", cmd.Args, err, out)
	}
	return got.Dir, nil
}

// definitions are the kinds whose CustomResourceDefinitions the objects need.
func definitions() []string {
	return []string{
		"addon.open-cluster-management.io_clustermanagementaddons", "addon.open-cluster-management.io_managedclusteraddons",
		"addon.open-cluster-management.io_addondeploymentconfigs", "addon.open-cluster-management.io_addontemplates",
		"clusters.open-cluster-management.io_managedclusters", "clusters.open-cluster-management.io_managedclustersets",
		"clusters.open-cluster-management.io_managedclustersetbindings", "clusters.open-cluster-management.io_placements",
		"clusters.open-cluster-management.io_placementdecisions",
	}
}

// work is the kind in which OCM carries what it has rendered.
const work = "work.open-cluster-management.io_manifestworks"

// install gives a cluster the definitions of a folder. One that is missing there is an
// error that names the folder and how to give another.
func install(ctx context.Context, to *testbed.Cluster, folder string, kinds ...string) error {
	folder, err := filepath.EvalSymlinks(folder)
	if err != nil {
		return fmt.Errorf("CRDs of OCM: %w", err)
	}
	files := map[string]string{}
	err = filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		// 0000_00_<group>_<plural>.crd.yaml
		if name, ok := strings.CutSuffix(entry.Name(), ".crd.yaml"); ok && len(name) > len("0000_00_") {
			files[name[len("0000_00_"):]] = path
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("CRDs of OCM: %w", err)
	}
	var args []string
	for _, kind := range kinds {
		if files[kind] == "" {
			return fmt.Errorf("CRDs of OCM: %s has no *_%s.crd.yaml: name a folder of them with %s", folder, kind, definitionsVariable)
		}
		args = append(args, "-f", files[kind])
	}
	if _, err := applyText(ctx, to, "", args...); err != nil {
		return err
	}
	_, err = to.Kubectl(ctx, "wait", "--for=condition=Established", "crd", "--all", "--timeout=2m")
	return err
}

// applyText is kubectl apply --server-side with a text on standard input, and returns
// what kubectl warns of.
func applyText(ctx context.Context, to *testbed.Cluster, text string, args ...string) (warnings string, err error) {
	cmd := to.Admin().Command(ctx, append([]string{"apply", "--server-side"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = strings.NewReader(text), &stderr
	if err := to.Admin().Namespace.Run(cmd); err != nil {
		return "", fmt.Errorf("kubectl apply --server-side %v: %w: %s", args, err, &stderr)
	}
	return stderr.String(), nil
}
