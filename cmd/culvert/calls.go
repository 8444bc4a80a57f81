package main

import (
	"context"
	"io"
	"log/slog"
	"time"

	"github.com/culvertdev/culvert/client"
	"github.com/culvertdev/culvert/internal/credential"
	"github.com/culvertdev/culvert/internal/profile"
	"github.com/culvertdev/culvert/internal/version"
)

// clientConfig is a profile as package client takes it, with the source of its token;
// a nil source is for a client certificate.
func clientConfig(p profile.Profile, from credential.Source) client.Config {
	config := client.Config{
		Hub: p.Hub, HubCA: p.HubCA, HubCAData: []byte(p.HubCAData), ServerName: p.ServerName, InsecureSkipVerify: p.InsecureSkipTLSVerify,
		CertFile: p.CertFile, KeyFile: p.KeyFile, Proxy: p.Proxy,
		UserAgent: "culvert/" + version.String(),
		Logger:    slog.New(slog.DiscardHandler),
		// Who types a command wants to know now.
		Patience: -1,
	}
	if from != nil {
		cache := credential.Cache{Dir: cacheDir(), Scope: p.Hub}
		var last credential.Token // of one call at a time
		config.TokenSource = func(ctx context.Context) (string, time.Time, error) {
			if time.Now().Before(last.Fresh()) {
				cache.Refused(from, last) // or nobody would ask for another by now
			}
			token, err := cache.Token(ctx, from)
			last = token
			return token.Value, token.Expires, err
		}
	}
	return config
}

// dial returns a client of the hub that the flags, the environment and the profiles say.
// change may set more of its configuration; nil changes nothing. The caller closes it.
func (c *callerFlags) dial(say io.Writer, change func(*client.Config)) (*client.Client, profile.Profile, error) {
	p, err := c.resolve()
	if err != nil {
		return nil, p, err
	}
	from, err := source(p, say)
	if err != nil {
		return nil, p, err
	}
	config := clientConfig(p, from)
	if change != nil {
		change(&config)
	}
	made, err := client.New(config)
	return made, p, err
}
