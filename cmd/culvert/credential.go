package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/culvertdev/culvert/cmd/internal/cli"
	"github.com/culvertdev/culvert/internal/credential"
	credkube "github.com/culvertdev/culvert/internal/credential/kube"
	"github.com/culvertdev/culvert/internal/profile"
)

// credentialOptions are the flags of culvert credential.
type credentialOptions struct {
	caller callerFlags

	context, kubeconfig, serviceAccount string
	audiences                           []string

	cluster, tokenRequest string

	duration time.Duration
	cacheDir string
}

func credentialCommand() *cobra.Command {
	var o credentialOptions
	cmd := &cobra.Command{
		Use:   "credential",
		Short: "Get a credential for kubectl: the exec credential plugin of kubeconfigs",
		Long: `Get a credential for kubectl and every other client of Kubernetes: the exec credential
plugin of the kubeconfigs that culvert kubeconfig makes. It prints an ExecCredential
(client.authentication.k8s.io/v1) with a bearer token, and nothing else.

One of these gives the token:
  --token-file       a file, read anew each time
  --token-command    a program; its output is the token
  --service-account  a service account of the cluster of --context, by TokenRequest
  --token-request    a service account of the cluster --cluster, by TokenRequest
                     through the hub, which --token-file or --token-command is for
Without one it is the credential of --profile or, without that, the environment
(CULVERT_TOKEN, CULVERT_TOKEN_FILE, CULVERT_TOKEN_COMMAND) or the current profile of
culvert login. A hub is needed for --token-request alone; else it keeps tokens of
several hubs apart.

Tokens other than those of a file are kept in the user's cache folder, mode 0600, until
a while before they expire, one that says nothing of it for a minute. Any number of
clients that start at once get one token together.`,
		Example: `  culvert credential
  culvert credential --profile work
  culvert credential --hub https://hub.example.com:8443 --token-file me.token
  culvert credential --hub https://hub.example.com:8443 --token-command 'my-login token'
  culvert credential --hub https://hub.example.com:8443 --context hub --service-account ops/robot --audience culvert`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := credkube.CheckInfo(os.Getenv(credkube.EnvironmentInfo)); err != nil {
				return err
			}
			source, done, err := o.source(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			defer done()
			token, err := o.cache().Token(cmd.Context(), source)
			if err != nil {
				return err
			}
			return credkube.Write(cmd.OutOrStdout(), token)
		},
	}
	f := cmd.Flags()
	o.caller.bind(cmd)
	f.StringVar(&o.context, "context", "", "context of the cluster of --service-account (default: the current one)")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "file with --context (default: KUBECONFIG, or ~/.kube/config)")
	f.StringVar(&o.serviceAccount, "service-account", "", "NAMESPACE/NAME of a service account whose token is asked for")
	f.StringSliceVar(&o.audiences, "audience", nil, "audience of that token (repeat; default: the cluster's own)")
	f.StringVar(&o.cluster, "cluster", "", "cluster of --token-request")
	f.StringVar(&o.tokenRequest, "token-request", "", "NAMESPACE/NAME of a service account of --cluster whose token is asked for")
	f.DurationVar(&o.duration, "duration", time.Hour, "how long a token that is asked for lasts")
	f.StringVar(&o.cacheDir, "cache-dir", "", "folder of the tokens (default: culvert/credentials in the user's cache folder)")
	completeClusterFlag(cmd)
	return cmd
}

// cache keeps tokens by hub.
func (o *credentialOptions) cache() credential.Cache {
	dir := o.cacheDir
	if dir == "" {
		dir = cacheDir()
	}
	return credential.Cache{Dir: dir, Scope: o.caller.hub}
}

// source is what the flags, the environment and the profiles say, in that order; done
// frees it.
func (o *credentialOptions) source(say io.Writer) (from credential.Source, done func(), err error) {
	done = func() {}
	if err := o.caller.check(); err != nil {
		return nil, done, err
	}
	switch {
	case o.serviceAccount == "" && (o.context != "" || o.kubeconfig != "" || len(o.audiences) > 0):
		return nil, done, cli.Usagef("--context, --kubeconfig, --audience: are for --service-account")
	case o.tokenRequest == "" && o.cluster != "":
		return nil, done, cli.Usagef("--cluster: is for --token-request")
	case o.serviceAccount != "" && (o.tokenRequest != "" || o.caller.credential()):
		return nil, done, cli.Usagef("--service-account: leave it out with --token-request, --token-file and --token-command")
	case o.serviceAccount != "":
		from, err = o.request()
		return from, done, err
	case o.tokenRequest != "":
		if o.cluster == "" {
			return nil, done, cli.Usagef("--cluster: required with --token-request")
		}
		hub, err := o.caller.open(say)
		if err != nil {
			return nil, done, err
		}
		if o.cacheDir != "" {
			hub.cache.Dir = o.cacheDir
		}
		from, err = hub.tokenRequest(o.cluster, o.tokenRequest, o.duration)
		return from, hub.close, err
	}
	p, err := o.profile()
	if err != nil {
		return nil, done, err
	}
	o.caller.hub = p.Hub // whose tokens they are
	if from, err = source(p, say); from == nil && err == nil {
		err = cli.Usage(errNoToken)
	}
	return from, done, err
}

// profile needs no hub where a flag, or the environment without a hub, says the source.
func (o *credentialOptions) profile() (profile.Profile, error) {
	if o.caller.hub == "" && o.caller.profile == "" {
		if o.caller.credential() {
			return profile.Profile{TokenFile: o.caller.tokenFile, TokenCommand: o.caller.tokenCommand, CertFile: o.caller.clientCert}, nil
		}
		if p, err := profile.EnvironmentCredential(""); os.Getenv(profile.EnvironmentHub) == "" && (err != nil || p.Credential() != profile.CredentialNone) {
			return p, cli.Usage(err)
		}
	}
	return o.caller.resolve()
}

// request asks the cluster of --context.
func (o *credentialOptions) request() (credential.Source, error) {
	namespace, name, err := credkube.ParseAccount(o.serviceAccount)
	if err != nil {
		return nil, cli.Usagef("--service-account: %w", err)
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = o.kubeconfig
	return credkube.Request{
		ID:        strings.Join([]string{"context", o.context, o.kubeconfig, os.Getenv(clientcmd.RecommendedConfigPathEnvVar)}, "\x00"),
		Namespace: namespace, Name: name, Audiences: o.audiences, Duration: o.duration,
		Cluster: func(context.Context) (*rest.Config, error) {
			cluster, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: o.context}).ClientConfig()
			if err != nil {
				return nil, fmt.Errorf("--context: %w", err)
			}
			return cluster, nil
		},
	}, nil
}
