package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/culvertdev/culvert/cmd/internal/cli"
	"github.com/culvertdev/culvert/cmd/internal/exitcode"
	"github.com/culvertdev/culvert/internal/policy"
	"github.com/culvertdev/culvert/internal/route"
	"github.com/culvertdev/culvert/internal/wire"
)

// exitDenied is the exit code of a decision that denies.
const exitDenied = exitcode.Forbidden

// requestFlags are a request to decide about.
type requestFlags struct {
	user           string
	groups         []string
	cluster        string
	labels         map[string]string
	path, verb     string
	service        string
	portNumber     uint16
	tcp            string
	addresses      []string
	as, asUID      string
	asGroups       []string
	withoutAnyUser bool
}

func policyTestCommand() *cobra.Command {
	var from policyFlags
	var ask requestFlags
	var out outputFlag
	cmd := &cobra.Command{
		Use:   "test",
		Short: "Decide about one request, and tell why",
		Long: `Decide about one request as the hub does with this policy, or with --agent as an
agent does, and tell which rule decided and what the other rules say. Nothing is
sent anywhere.

One of --path, --service, --tcp and --as says what is asked for. The exit code is
0 for allowed, 6 for denied, and another one for an error.`,
		Example: `  culvert policy test --policy policy.yaml --user alice --group ops --cluster edge-1 --verb list --path /api/v1/pods
  culvert policy test --policy policy.yaml --user alice --cluster edge-1 --label env=prod --service default/web:8443
  culvert policy test --policy policy.yaml --user alice --cluster edge-1 --as bob
  culvert policy test --policy agent.yaml --agent --tcp db.prod:5432 --address 10.0.0.5`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := out.check(); err != nil {
				return err
			}
			ask.withoutAnyUser = from.agent && ask.user == "" && len(ask.groups) == 0
			request, err := ask.request()
			if err != nil {
				return cli.Usage(err)
			}
			loaded, err := from.load()
			if err != nil {
				return err
			}
			explanation := loaded.Explain(request)
			if err := printExplanation(cmd.OutOrStdout(), out, explanation); err != nil {
				return err
			}
			if !explanation.Allowed {
				os.Exit(exitDenied)
			}
			return nil
		},
	}
	from.bind(cmd)
	ask.bind(cmd)
	out.bind(cmd)
	return cmd
}

func (r *requestFlags) bind(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&r.user, "user", "", "name of who asks (required; with --agent default: not known)")
	f.StringSliceVar(&r.groups, "group", nil, "group of who asks (repeat; default none)")
	f.StringVar(&r.cluster, "cluster", "", "name of the cluster (required; with --agent default none)")
	f.StringToStringVar(&r.labels, "label", nil, "key=value of the cluster (repeat; default none)")
	f.StringVar(&r.path, "path", "", "path at the cluster's Kubernetes API, with its query, or of a service")
	f.StringVar(&r.verb, "verb", "", "verb for --path: get, list, watch, create, update, patch, delete, deletecollection, or an HTTP method in lower case (default get, or list, as the path says)")
	f.StringVar(&r.service, "service", "", "service, as [http:|https:]NAMESPACE/NAME[:PORT]")
	f.Uint16Var(&r.portNumber, "port-number", 0, "what the port of --service turns out to be, as an agent learns (default not known)")
	f.StringVar(&r.tcp, "tcp", "", "raw TCP target, as HOST:PORT")
	f.StringSliceVar(&r.addresses, "address", nil, "what the host of --tcp resolves to, as an agent learns (repeat; default not known)")
	f.StringVar(&r.as, "as", "", "user to impersonate")
	f.StringSliceVar(&r.asGroups, "as-group", nil, "group to impersonate (repeat; default none)")
	f.StringVar(&r.asUID, "as-uid", "", "UID to impersonate (default none)")
}

// request makes a request of the flags, with the parsers of the hub.
func (r *requestFlags) request() (policy.Request, error) {
	q := policy.Request{UserUnknown: r.withoutAnyUser, Cluster: policy.Cluster{Name: r.cluster, Labels: r.labels}}
	var problems []error
	if !r.withoutAnyUser {
		if r.user == "" {
			problems = append(problems, errors.New("--user: required: the name of who asks"))
		}
		q.User = &user.DefaultInfo{Name: r.user, Groups: r.groups}
		if err := route.CheckCluster(r.cluster); err != nil {
			problems = append(problems, fmt.Errorf("--%w", err)) // it starts with the field
		}
	}
	given := 0
	for _, set := range []bool{r.path != "", r.service != "", r.tcp != "", r.as != "" || r.asUID != "" || len(r.asGroups) > 0} {
		if set {
			given++
		}
	}
	if given != 1 {
		problems = append(problems, errors.New("--path, --service, --tcp, --as: give one of them, which is what is asked for"))
		return q, errors.Join(problems...)
	}
	if err := r.target(&q); err != nil {
		problems = append(problems, err)
	}
	return q, errors.Join(problems...)
}

func (r *requestFlags) target(q *policy.Request) error {
	switch {
	case r.path != "":
		return r.setPath(q)
	case r.service != "":
		return r.setService(q)
	case r.tcp != "":
		return r.setTCP(q)
	default:
		q.Impersonate = &policy.Impersonation{User: r.as, UID: r.asUID, Groups: r.asGroups}
		return nil
	}
}

// methods are the HTTP methods of verbs that are not called after one.
var methods = map[string]string{
	"": http.MethodGet, "list": http.MethodGet, "watch": http.MethodGet, "create": http.MethodPost,
	"update": http.MethodPut, "deletecollection": http.MethodDelete,
}

func (r *requestFlags) setPath(q *policy.Request) error {
	path, query, _ := strings.Cut(r.path, "?")
	if !strings.HasPrefix(path, "/") {
		return fmt.Errorf("--path: %q does not start with '/'", path)
	}
	// Any name will do: only what follows it is of interest.
	to, err := route.Parse("/cluster" + path)
	if err != nil {
		return fmt.Errorf("--path: %w", errors.Unwrap(err))
	}
	if to.Target.Kind == wire.TargetService {
		return q.SetTarget(to.Target)
	}
	method, ok := methods[r.verb]
	if !ok {
		method = strings.ToUpper(r.verb)
	}
	if r.verb == "watch" && !strings.Contains(query, "watch=") {
		query = strings.TrimPrefix(query+"&watch=true", "&")
	}
	attributes, err := policy.Attributes(q.User, method, path, query)
	if err != nil {
		return fmt.Errorf("--path: %w", err)
	}
	if r.verb != "" && attributes.Verb != r.verb {
		return fmt.Errorf("--verb: a request for this path that is sent with %s has the verb %q, not %q", method, attributes.Verb, r.verb)
	}
	q.Kubernetes = attributes
	return nil
}

func (r *requestFlags) setService(q *policy.Request) error {
	target, err := route.ParseService(r.service)
	if err != nil {
		return fmt.Errorf("--service: %w", err)
	}
	if err := q.SetTarget(target); err != nil {
		return err
	}
	q.Service.Number = r.portNumber
	return nil
}

func (r *requestFlags) setTCP(q *policy.Request) error {
	target, err := route.ParseAddress(r.tcp)
	if err != nil {
		return fmt.Errorf("--tcp: %w", err)
	}
	if err := q.SetTarget(target); err != nil {
		return err
	}
	for _, text := range r.addresses {
		address, err := netip.ParseAddr(text)
		if err != nil {
			return fmt.Errorf("--address: %q is no IP address", text)
		}
		q.TCP.Addresses = append(q.TCP.Addresses, address)
	}
	return nil
}

// explained is an explanation as it is printed.
type explained struct {
	Allowed bool            `json:"allowed"`
	Rule    string          `json:"rule"`
	Reason  string          `json:"reason"`
	Rules   []explainedRule `json:"rules"`
}

type explainedRule struct {
	Name    string `json:"name"`
	Effect  string `json:"effect"`
	Matches bool   `json:"matches"`
	Why     string `json:"why"`
}

func printExplanation(w io.Writer, out outputFlag, e policy.Explanation) error {
	value := explained{Allowed: e.Allowed, Rule: e.Rule, Reason: e.Reason, Rules: []explainedRule{}}
	var lines [][]string
	for _, r := range e.Rules {
		value.Rules = append(value.Rules, explainedRule{r.Name, string(r.Effect), r.Matches, r.Why})
		matches := "no"
		if r.Matches {
			matches = "yes"
		}
		lines = append(lines, []string{r.Name, string(r.Effect), matches, r.Why})
	}
	return out.print(w, value, func(w io.Writer) error {
		verdict := "denied"
		if e.Allowed {
			verdict = "allowed"
		}
		if err := fields(w, [2]string{"decision", verdict}, [2]string{"rule", e.Rule}, [2]string{"reason", e.Reason}); err != nil {
			return err
		}
		if len(lines) == 0 {
			return nil
		}
		if _, err := fmt.Fprintln(w); err != nil {
			return err
		}
		return rows(w, []string{"RULE", "EFFECT", "MATCHES", "WHY"}, lines)
	})
}
