package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/culvertdev/culvert/internal/credential"
	credkube "github.com/culvertdev/culvert/internal/credential/kube"
)

// The variables that say where a token comes from where no flag does.
const (
	envTokenFile    = "CULVERT_TOKEN_FILE"
	envTokenCommand = "CULVERT_TOKEN_COMMAND"
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
Without a flag, CULVERT_TOKEN_FILE or CULVERT_TOKEN_COMMAND of the environment says
what those two flags do.

Tokens other than those of a file are kept in the user's cache folder, mode 0600, until
a while before they expire, one that says nothing of it for a minute. Any number of
clients that start at once get one token together.`,
		Example: `  culvert credential --hub https://hub.example.com:8443 --token-file me.token
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
	f.StringVar(&o.caller.hub, "hub", "", "URL of the hub that the token is for, https://host:port (required with --token-request; else it keeps tokens of several hubs apart)")
	f.StringVar(&o.caller.hubCA, "hub-ca", "", "PEM file of the CAs that verify the hub, for --token-request (default: the system's)")
	f.StringVar(&o.caller.tokenFile, "token-file", "", "file with the token")
	f.StringVar(&o.caller.tokenCommand, "token-command", "", "line for the shell that prints the token; it must have no secret in it")
	f.StringVar(&o.context, "context", "", "context of the cluster of --service-account (default: the current one)")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "file with --context (default: KUBECONFIG, or ~/.kube/config)")
	f.StringVar(&o.serviceAccount, "service-account", "", "NAMESPACE/NAME of a service account whose token is asked for")
	f.StringSliceVar(&o.audiences, "audience", nil, "audience of that token (repeat; default: the cluster's own)")
	f.StringVar(&o.cluster, "cluster", "", "cluster of --token-request")
	f.StringVar(&o.tokenRequest, "token-request", "", "NAMESPACE/NAME of a service account of --cluster whose token is asked for")
	f.DurationVar(&o.duration, "duration", time.Hour, "how long a token that is asked for lasts")
	f.StringVar(&o.cacheDir, "cache-dir", "", "folder of the tokens (default: culvert/credentials in the user's cache folder)")
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

// source is what the flags, and without any the environment, say; done frees it.
func (o *credentialOptions) source(say io.Writer) (source credential.Source, done func(), err error) {
	done = func() {}
	if o.caller.hub != "" {
		if o.caller.hub, err = hubBase(o.caller.hub); err != nil {
			return nil, done, err
		}
	}
	if o.caller.tokenFile == "" && o.caller.tokenCommand == "" && o.serviceAccount == "" {
		o.caller.tokenFile, o.caller.tokenCommand = os.Getenv(envTokenFile), os.Getenv(envTokenCommand)
	}
	switch {
	case o.serviceAccount != "" && (o.tokenRequest != "" || o.caller.tokenFile != "" || o.caller.tokenCommand != ""):
		return nil, done, errors.New("--service-account: leave it out with --token-request, --token-file and --token-command")
	case o.serviceAccount != "":
		source, err = o.request()
		return source, done, err
	case o.tokenRequest != "":
		if o.caller.hub == "" || o.cluster == "" {
			return nil, done, errors.New("--hub, --cluster: required with --token-request")
		}
		hub, err := o.caller.open(say)
		if err != nil {
			return nil, done, err
		}
		if o.cacheDir != "" {
			hub.cache.Dir = o.cacheDir
		}
		source, err = hub.tokenRequest(o.cluster, o.tokenRequest, o.duration)
		return source, hub.close, err
	}
	if source, err = o.caller.source(say); err != nil {
		err = fmt.Errorf("%w, or set %s or %s", err, envTokenFile, envTokenCommand)
	}
	return source, done, err
}

// request asks the cluster of --context.
func (o *credentialOptions) request() (credential.Source, error) {
	namespace, name, err := credkube.ParseAccount(o.serviceAccount)
	if err != nil {
		return nil, fmt.Errorf("--service-account: %w", err)
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
