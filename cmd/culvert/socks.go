package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/culvertdev/culvert/client"
	"github.com/culvertdev/culvert/internal/forward"
	"github.com/culvertdev/culvert/internal/route"
	"github.com/culvertdev/culvert/internal/socks"
)

// socksOptions are the flags of culvert socks.
type socksOptions struct {
	caller callerFlags
	report reportFlags

	cluster, listen string
	maxConnections  int
}

func socksCommand() *cobra.Command {
	var o socksOptions
	cmd := &cobra.Command{
		Use:   "socks [-- COMMAND ARG...]",
		Short: "Serve a SOCKS5 proxy whose targets are behind agents",
		Long: `Serve a SOCKS5 proxy on this machine whose targets are TCP addresses behind the agents
of clusters. Names are looked up by the agent, never here: give the proxy as socks5h://,
or whatever a program calls proxy DNS.

With --cluster every connection goes to that cluster. Without it each one says where it
goes, by one of these:
  the user name      socks5h://edge-1:x@127.0.0.1:1080, with any password
  the host           db.prod.edge-1.culvert is db.prod in edge-1

With -- COMMAND it runs the command once it is ready, with the proxy in ALL_PROXY, and
ends with it and with its exit code.`,
		Example: `  culvert socks --cluster edge-1
  curl --socks5-hostname 127.0.0.1:1080 http://web.prod/
  culvert socks --listen 127.0.0.1:0 --cluster edge-1 -- curl http://web.prod/`,
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			if behindDash() {
				return nil, cobra.ShellCompDirectiveDefault
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
		Args: func(cmd *cobra.Command, args []string) error {
			if dash := cmd.ArgsLenAtDash(); len(args) > 0 && dash != 0 {
				return fmt.Errorf("unknown argument %q: the cluster is --cluster, and a command stands behind --", args[0])
			}
			if o.cluster != "" {
				if err := route.CheckCluster(o.cluster); err != nil {
					return fmt.Errorf("--%w", err)
				}
			}
			_, port, err := net.SplitHostPort(o.listen)
			if err == nil {
				_, err = strconv.ParseUint(port, 10, 16)
			}
			if err != nil {
				return fmt.Errorf("--listen: %q: want an address of this machine, host:port", o.listen)
			}
			return errors.Join(checkMaxConnections(o.maxConnections), o.report.check())
		},
		RunE: o.run,
	}
	o.caller.bind(cmd)
	o.caller.bindInsecure(cmd)
	o.report.bind(cmd)
	f := cmd.Flags()
	f.StringVar(&o.cluster, "cluster", "", "cluster of all connections (default: each says its own)")
	f.StringVar(&o.listen, "listen", "127.0.0.1:1080", "address to listen on; port 0 picks one that is free")
	maxConnectionsFlag(cmd, &o.maxConnections)
	completeClusterFlag(cmd)
	return cmd
}

func (o *socksOptions) run(cmd *cobra.Command, command []string) error {
	report := o.report.open(cmd, len(command) > 0)
	return withClient(cmd, &o.caller, report.log(), client.DefaultPatience, func(ctx context.Context, c *client.Client) error {
		find := c.Connect
		if o.cluster != "" {
			find = func(ctx context.Context) error {
				return findTargets(ctx, c, forward.Destination{Cluster: o.cluster})
			}
		}
		stop := progress(cmd.ErrOrStderr(), "asking "+c.Hub())
		err := find(ctx)
		stop()
		if err != nil {
			return err
		}
		ln, err := forward.Listen(ctx, "tcp", o.listen)
		if err != nil {
			return fmt.Errorf("--listen: %w", err)
		}
		to := forward.Destination{Cluster: o.cluster, Address: "SOCKS5"}
		if o.cluster == "" {
			to.Cluster = "*"
		}
		server := &socks.Server{Dial: c.DialContext, Explain: socksReply, Cluster: o.cluster}
		return serveListeners(ctx, report, o.maxConnections, []forward.Listener{{Listener: ln, To: to, Open: server.Open}}, command, proxyEnv(ln.Addr()))
	})
}

// proxyEnv is how programs are told of a proxy.
func proxyEnv(address net.Addr) []string {
	url := "socks5h://" + address.String()
	return []string{"ALL_PROXY=" + url, "all_proxy=" + url}
}

// socksReply is what a client of the proxy is told of an error.
func socksReply(err error) socks.Reply {
	e, ok := errors.AsType[*client.Error](err)
	if !ok {
		return socks.GeneralFailure
	}
	switch e.Code {
	case client.PermissionDenied, client.Unauthenticated:
		return socks.NotAllowed
	case client.NotFound:
		return socks.HostUnreachable
	case client.ConnectionRefused:
		return socks.ConnectionRefused
	case client.DeadlineExceeded:
		return socks.TTLExpired
	case client.Unreachable:
		if e.Hop == client.HopTarget || e.Hop == client.HopAgent {
			return socks.HostUnreachable
		}
		return socks.NetworkUnreachable
	case client.Unavailable, client.LinkLost:
		return socks.NetworkUnreachable
	default:
		return socks.GeneralFailure
	}
}
