package registry

import (
	"cmp"
	"net"
	"strconv"
	"strings"

	"github.com/culvertdev/culvert/internal/mux"
)

// maxAgentName bounds an agent's name, in bytes, to what an audit line has room for
// with what nameFor adds.
const maxAgentName = 200

// nameFor returns what a new agent of the cluster is called: the name that it came
// with or, of one that came with none, its instance or its address. Where another
// connected agent has that name, the newer one gets its generation put behind it, so
// that an audit line means one agent.
func (c *cluster) nameFor(a Agent) string {
	name := cmp.Or(a.Name, a.Instance)
	if name == "" && a.Remote != nil {
		name = a.Remote.String()
		if host, _, err := net.SplitHostPort(name); err == nil {
			name = host
		}
	}
	if len(name) > maxAgentName {
		name = strings.ToValidUTF8(name[:maxAgentName], "")
	}
	for c.has(name) {
		name += "~" + strconv.FormatUint(a.Generation, 10)
	}
	return name
}

// NameOf returns what the agent at the other end of a link of the cluster is called,
// empty for a link that is not, or no longer, here.
func (r *Registry) NameOf(cluster string, link *mux.Link) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.clusters[cluster]; c != nil {
		for _, a := range c.agents {
			if a.link == link {
				return a.Name
			}
		}
	}
	return ""
}

func (c *cluster) has(name string) bool {
	for _, a := range c.agents {
		if a.Name == name {
			return true
		}
	}
	return false
}
