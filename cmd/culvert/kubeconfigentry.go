package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"github.com/culvertdev/culvert/internal/credential"
	"github.com/culvertdev/culvert/internal/kubeconfig"
	"github.com/culvertdev/culvert/internal/profile"
)

// entryMaker makes the entries of a kubeconfig.
type entryMaker struct {
	o   *kubeconfigOptions
	hub *hubCaller
	// user and ca are those of --from.
	user *api.AuthInfo
	ca   []byte
}

// prepare reads --from.
func (m *entryMaker) prepare() error {
	if m.o.from == "" {
		return nil
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = m.o.file
	config, err := rules.Load()
	if err != nil {
		return fmt.Errorf("--from: %w", err)
	}
	if config.Contexts[m.o.from] == nil {
		return fmt.Errorf("--from: no context is named %q: kubectl config get-contexts shows them", m.o.from)
	}
	config.CurrentContext = m.o.from
	if err := errors.Join(api.MinifyConfig(config), api.FlattenConfig(config)); err != nil {
		return fmt.Errorf("--from: %w", err)
	}
	for _, user := range config.AuthInfos {
		m.user = user
		m.user.LocationOfOrigin, m.user.Extensions = "", nil
	}
	for _, cluster := range config.Clusters {
		m.ca = cluster.CertificateAuthorityData
	}
	if m.user == nil && m.o.tokenRequest == "" {
		return fmt.Errorf("--from: the context %q has no user", m.o.from)
	}
	return nil
}

// make makes what a cluster gets: one entry, or two for --access both.
func (m *entryMaker) make(ctx context.Context, cluster string) ([]kubeconfig.Entry, error) {
	name := cluster
	if m.o.name != "" {
		name = m.o.name
	}
	if m.o.access != accessBoth {
		e, err := m.one(ctx, cluster, name, m.o.access)
		return []kubeconfig.Entry{e}, err
	}
	var entries []kubeconfig.Entry
	for _, access := range []kubeconfig.Access{kubeconfig.AccessTunnel, kubeconfig.AccessDirect} {
		e, err := m.one(ctx, cluster, name+"-"+string(access), string(access))
		if err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	return entries, nil
}

func (m *entryMaker) one(ctx context.Context, cluster, name, access string) (e kubeconfig.Entry, err error) {
	query := url.Values{"mode": {m.o.mode}, "access": {access}, "wait": {m.o.wait.String()}}
	clusterCA := m.ca
	if m.o.foreign() && access != string(kubeconfig.AccessDirect) {
		if clusterCA == nil {
			if clusterCA, err = m.hub.clusterCA(ctx, cluster, m.o.wait); err != nil {
				return e, err
			}
		}
		query.Set("ca", encodeCA(clusterCA))
	}
	if e, err = m.hub.kubeconfig(ctx, cluster, query); err != nil {
		return e, err
	}
	e.Name, e.Namespace = name, m.o.namespace
	// What a hub says of users runs programs on this machine: it is not taken.
	if e.User, err = m.userFor(ctx, cluster); err != nil {
		return e, err
	}
	e.Info.Conditions = nil // it was the missing user
	if e.Info.Mode == kubeconfig.ModeEndToEnd {
		if err := m.setProxy(ctx, &e, clusterCA); err != nil {
			return e, err
		}
	}
	if m.hub.profile.InsecureSkipTLSVerify {
		e.Insecure, e.CA = true, nil
	}
	return e, nil
}

// setProxy puts the caller's credential into the proxy's URL, which is the only place
// where client-go looks for it, or puts another proxy in the hub's place.
func (m *entryMaker) setProxy(ctx context.Context, e *kubeconfig.Entry, clusterCA []byte) error {
	if m.o.proxyURL != "" {
		u, err := url.Parse(m.o.proxyURL)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "socks5" {
			return errors.New("--proxy-url: want http://, https:// or socks5://, a host and a port")
		}
		e.ProxyURL = m.o.proxyURL
		if u.Scheme != "https" {
			e.CA = clusterCA // nothing of the hub's has to be believed
		}
		e.Info.Generation = ""
		return nil
	}
	u, err := url.Parse(e.ProxyURL)
	if err != nil {
		return errors.New("the hub's answer names no proxy")
	}
	token, err := m.hub.token(ctx)
	if err != nil {
		return err
	}
	u.User = url.UserPassword("culvert", token.Value)
	e.ProxyURL = u.String()
	return nil
}

// userFor is who the file's user is.
func (m *entryMaker) userFor(ctx context.Context, cluster string) (*api.AuthInfo, error) {
	o := m.o
	switch {
	case o.tokenRequest != "" && o.rotate:
		args := []string{"--cluster", cluster, "--token-request", o.tokenRequest, "--duration", o.duration.String()}
		return m.pluginUser(append(args, arguments(m.hub.profile, true)...)...), nil
	case o.tokenRequest != "":
		source, err := m.hub.tokenRequest(cluster, o.tokenRequest, o.duration)
		if err != nil {
			return nil, err
		}
		token, err := source.Fetch(ctx)
		return tokenUser(token), err
	case o.from != "":
		return m.user, nil
	case o.embedToken:
		token, err := m.hub.token(ctx)
		return tokenUser(token), err
	}
	if p := m.hub.profile; p.Credential() == profile.CredentialCertificate {
		user := api.NewAuthInfo()
		user.ClientCertificate, user.ClientKey = p.CertFile, p.KeyFile
		return user, nil
	}
	return m.pluginUser(arguments(m.hub.profile, false)...), nil
}

// pluginUser is culvert credential with the environment that it needs.
func (m *entryMaker) pluginUser(args ...string) *api.AuthInfo {
	user := kubeconfig.PluginUser(pluginCommand(), args...)
	if name, value, ok := pluginEnvironment(m.hub.profile); ok {
		user.Exec.Env = []api.ExecEnvVar{{Name: name, Value: value}}
	}
	return user
}

func tokenUser(token credential.Token) *api.AuthInfo {
	user := api.NewAuthInfo()
	user.Token = token.Value
	return user
}

// pluginCommand is how kubectl finds this program: by its name where that leads to
// it, else by its path.
func pluginCommand() string {
	const name = "culvert"
	self, err := os.Executable()
	if err != nil {
		return name
	}
	here, err := os.Stat(self)
	if err != nil {
		return name
	}
	if found, err := exec.LookPath(name); err == nil {
		if there, err := os.Stat(found); err == nil && os.SameFile(here, there) {
			return name
		}
	}
	return self
}
