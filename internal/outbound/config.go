package outbound

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpproxy"
)

// None as [Config.URL] means that no proxy is used, whatever the environment
// says.
const None = "none"

// Config says which proxy leads to the hub. The zero value follows the
// environment. The JSON names are those of the agent's configuration file.
type Config struct {
	// URL is the proxy: http://[user:password@]host[:port], or https:// for one
	// that is spoken to in TLS. The default ports are 80 and 443. "none" is no
	// proxy. Default: HTTPS_PROXY of the environment.
	URL string `json:"url,omitempty"`
	// NoProxy are hosts that are reached directly: a name stands for itself and
	// what is below it, ".name" for what is below alone, and IP addresses, CIDR
	// ranges, a port behind each of them and "*" are understood. An empty list
	// that is not nil is no exception at all. Default: NO_PROXY of the
	// environment.
	NoProxy []string `json:"noProxy,omitempty"`
	// CA is a PEM file of the CAs that an https:// proxy's certificate comes from,
	// read again when it changes. Default: the system's.
	CA string `json:"ca,omitempty"`
	// CredentialsFile holds one line, user:password, sent as they are in Basic
	// authentication; read for each connection. It stands in for credentials in
	// the URL, which others may see in a process list. Default: those of the URL.
	CredentialsFile string `json:"credentialsFile,omitempty"`
}

// LogValue implements [slog.LogValuer]: credentials are not shown.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// String is for people; credentials are not shown.
func (c Config) String() string {
	at := "as the environment says"
	switch {
	case c.URL == None:
		at = None
	case c.URL != "":
		p, err := parseProxy(c.URL)
		if at = "[not a URL]"; err == nil {
			at = p.name()
		}
	}
	return fmt.Sprintf("{url:%s noProxy:%v ca:%s credentialsFile:%s}", at, c.NoProxy, c.CA, c.CredentialsFile)
}

// GoString implements [fmt.GoStringer]: credentials are not shown.
func (c Config) GoString() string { return c.String() }

// Validate names everything that is wrong, with the field. It does not look at
// the environment and reads no file; [New] does.
func (c Config) Validate() error {
	var problems []error
	if c.URL != "" && c.URL != None {
		p, err := parseProxy(c.URL)
		switch {
		case err != nil:
			problems = append(problems, fmt.Errorf("url: %w", err))
		case p.basic != "" && c.CredentialsFile != "":
			problems = append(problems, errors.New("url, credentialsFile: credentials are in both, give them once"))
		}
		if err == nil && c.CA != "" && p.scheme != schemeHTTPS {
			problems = append(problems, errors.New("ca: without effect, since the URL's scheme is not https"))
		}
	}
	if c.URL == None && (len(c.NoProxy) > 0 || c.CA != "" || c.CredentialsFile != "") {
		problems = append(problems, errors.New(`noProxy, ca, credentialsFile: without effect beside the URL "none"`))
	}
	for i, entry := range c.NoProxy {
		if strings.Contains(entry, "://") {
			problems = append(problems, fmt.Errorf("noProxy[%d]: %q has a scheme, want a host, an address or a range", i, entry))
		}
	}
	return errors.Join(problems...)
}

// choose returns what decides for an address, and the proxy; nil is none.
func (c Config) choose() (proxy *proxy, uses func(*url.URL) (*url.URL, error), err error) {
	env := httpproxy.FromEnvironment()
	from, where := c.URL, "url"
	if from == "" {
		from, where = env.HTTPSProxy, "HTTPS_PROXY of the environment"
	}
	if from == "" || from == None {
		return nil, nil, nil
	}
	if proxy, err = parseProxy(from); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", where, err)
	}
	exceptions := env.NoProxy
	if c.NoProxy != nil {
		exceptions = strings.Join(c.NoProxy, ",")
	}
	// Its own parser takes a URL that it cannot read for none; it gets one that
	// says no more than that there is a proxy.
	decide := httpproxy.Config{HTTPSProxy: "http://proxy.invalid", NoProxy: exceptions}
	return proxy, decide.ProxyFunc(), nil
}

const (
	schemeHTTP  = "http"
	schemeHTTPS = "https"
)

// proxy is a parsed URL. It prints without credentials.
type proxy struct {
	scheme, host, port string
	// basic is user:password, empty without credentials.
	basic string
}

// name is the URL without credentials and path, for messages.
func (p *proxy) name() string { return p.scheme + "://" + p.address() }

func (p *proxy) address() string { return net.JoinHostPort(p.host, p.port) }

// String is name: a proxy must not be printed with its credentials.
func (p *proxy) String() string { return p.name() }

// errNotURL says nothing of what was given, since what is wrong may be that a
// password is not escaped.
var errNotURL = errors.New("not the URL of a proxy, want http://[user:password@]host:port or https://…, with special characters of user and password percent-encoded")

// parseProxy reads a proxy's URL. Without a scheme http is meant, as in the
// environment of other programs. Errors have no part of the text in them but a
// scheme.
func parseProxy(text string) (*proxy, error) {
	if !strings.Contains(text, "://") {
		text = schemeHTTP + "://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.Opaque != "" {
		return nil, errNotURL
	}
	p := &proxy{scheme: u.Scheme, host: u.Hostname(), port: u.Port()}
	switch {
	case p.scheme != schemeHTTP && p.scheme != schemeHTTPS:
		return nil, fmt.Errorf("a proxy with scheme %q is not supported, want http or https", p.scheme)
	case (u.Path != "" && u.Path != "/") || u.RawQuery != "" || u.Fragment != "":
		return nil, errNotURL
	case p.port == "" && p.scheme == schemeHTTP:
		p.port = "80"
	case p.port == "":
		p.port = "443"
	}
	if n, err := strconv.ParseUint(p.port, 10, 16); err != nil || n == 0 {
		return nil, errNotURL
	}
	if u.User != nil {
		password, _ := u.User.Password()
		if p.basic, err = basicOf(u.User.Username(), password); err != nil {
			return nil, err
		}
	}
	return p, nil
}
