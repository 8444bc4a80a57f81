package kubeconfig

import (
	"fmt"
	"slices"
	"strings"
)

// Mode is one of the forms of a kubeconfig.
type Mode string

// The modes. Who authenticates the user differs: the hub in the first two, the
// cluster itself in the others.
const (
	ModePath        Mode = "path"
	ModeSNI         Mode = "sni"
	ModePassthrough Mode = "passthrough"
	ModeEndToEnd    Mode = "end-to-end"
)

var modes = []Mode{ModePath, ModeSNI, ModePassthrough, ModeEndToEnd}

// ParseMode returns the mode of a name; empty is [ModePath].
func ParseMode(text string) (Mode, error) {
	if text == "" {
		return ModePath, nil
	}
	if mode := Mode(text); slices.Contains(modes, mode) {
		return mode, nil
	}
	return "", fmt.Errorf("mode: %.32q: want %s", text, names(modes))
}

// Foreign tells whether the cluster itself, and not the hub, has the caller's TLS
// and authenticates the user.
func (m Mode) Foreign() bool { return m == ModePassthrough || m == ModeEndToEnd }

// Access says by which way a cluster is reached.
type Access string

// The ways.
const (
	// AccessAuto is the tunnel where an agent is connected, else the recorded URL.
	AccessAuto Access = "auto"
	// AccessTunnel is by the hub.
	AccessTunnel Access = "tunnel"
	// AccessDirect is by the URL that the hub has recorded for the cluster.
	AccessDirect Access = "direct"
)

var accesses = []Access{AccessAuto, AccessTunnel, AccessDirect}

// ParseAccess returns the way of a name; empty is [AccessAuto].
func ParseAccess(text string) (Access, error) {
	if text == "" {
		return AccessAuto, nil
	}
	if access := Access(text); slices.Contains(accesses, access) {
		return access, nil
	}
	return "", fmt.Errorf("access: %.32q: want %s", text, names(accesses))
}

func names[T ~string](all []T) string {
	var out []string
	for _, one := range all {
		out = append(out, string(one))
	}
	return strings.Join(out[:len(out)-1], ", ") + " or " + out[len(out)-1]
}
