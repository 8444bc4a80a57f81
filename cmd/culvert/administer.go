package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/culvertdev/culvert/cmd/internal/cli"
	"github.com/culvertdev/culvert/cmd/internal/exitcode"
	"github.com/culvertdev/culvert/internal/credential"
	"github.com/culvertdev/culvert/internal/front/admin"
	"github.com/culvertdev/culvert/internal/profile"
)

// hubFlags say which hub an administrator's command is for: one on this machine, by its
// state folder, or one elsewhere, called as everybody calls it.
type hubFlags struct {
	state  string
	caller callerFlags
}

func (h *hubFlags) bind(cmd *cobra.Command) {
	cmd.Flags().StringVar(&h.state, "state", "", "state folder of a hub that runs on this machine, in place of a hub that is called: for its user and root")
	h.caller.bind(cmd)
}

// client returns one for the hub that the flags name; the caller closes it.
func (h *hubFlags) client(ctx context.Context, say io.Writer) (*admin.Client, error) {
	if h.state != "" {
		if h.caller != (callerFlags{}) {
			return nil, cli.Usagef("--state: leave it out with --hub, --profile and credentials, which are for a hub elsewhere")
		}
		return admin.NewSocketClient(h.state), nil
	}
	p, err := h.caller.resolve()
	if missing, ok := errors.AsType[*profile.MissingError](err); ok && missing.Name == "" {
		return nil, fmt.Errorf("%w, or give --state, the state folder of a hub on this machine", err)
	}
	if err != nil {
		return nil, err
	}
	from, err := source(p, say)
	if err != nil {
		return nil, err
	}
	var token credential.Token
	if from != nil {
		cache := credential.Cache{Dir: cacheDir(), Scope: p.Hub}
		if token, err = cache.Token(ctx, from); err != nil {
			return nil, err
		}
	}
	t, err := transport(p)
	if err != nil {
		return nil, err
	}
	return admin.NewHTTPSClient(p.Hub, token.Value, t)
}

// ask runs do with a client of the hub that the flags name.
func (h *hubFlags) ask(ctx context.Context, do func(ctx context.Context, c *admin.Client) error) error {
	c, err := h.client(ctx, os.Stderr)
	if err != nil {
		return err
	}
	defer c.Close()
	err = do(ctx, c)
	if call, ok := errors.AsType[*admin.CallError](err); ok {
		return hubError(call.Hub, call.Err)
	}
	if errors.As(err, new(*admin.UnreachableError)) {
		return &exitcode.Error{Code: exitcode.HubUnreachable, Err: err, Complete: true}
	}
	return err
}

// oneName is for commands with one argument.
func oneName(what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != 1 || args[0] == "" {
			return errors.New("want one argument, the " + what)
		}
		return nil
	}
}
