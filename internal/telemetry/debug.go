package telemetry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
)

// DebugConfig sets up the debug listener. Logger is required.
type DebugConfig struct {
	// Links and Live are what is shown; nil: nothing.
	Links  *Links
	Live   *Live
	Logger *slog.Logger
}

const (
	defaultLimit = 1000
	mostLimit    = 100_000
)

// ListenDebug takes an address on loopback, host:port; Serve answers on it what
// [DebugConfig] has, and profiles. The caller closes the Server. It asks nobody
// who they are, since whoever is on the machine can look at the process anyway:
// an address that others could reach is refused, and so is a request that a web
// page made a browser send.
func ListenDebug(ctx context.Context, address string, cfg DebugConfig) (*Server, error) {
	if cfg.Logger == nil {
		return nil, errors.New("debug: Logger is required")
	}
	at, err := loopback(address)
	if err != nil {
		return nil, err
	}
	d := &debugger{cfg: cfg}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", d.index)
	mux.HandleFunc("GET /debug/links", d.links)
	mux.HandleFunc("GET /debug/sessions", d.sessions)
	mux.HandleFunc("GET /debug/requests", d.requests)
	mux.HandleFunc("GET /debug/pprof/{$}", d.index)
	mux.HandleFunc("GET /debug/pprof/{profile}", d.profile)
	return listen(ctx, "debug", at.String(), local(mux), cfg.Logger)
}

// CheckDebugAddress says whether ListenDebug would take an address, for who checks
// a configuration before anything listens.
func CheckDebugAddress(address string) error {
	_, err := loopback(address)
	return err
}

// loopback reads an address and refuses one that is not on loopback. A name is
// not resolved: "localhost" is 127.0.0.1 (RFC 6761 section 6.3), whatever a file
// of hosts says.
func loopback(address string) (netip.AddrPort, error) {
	refuse := func(why string) (netip.AddrPort, error) {
		return netip.AddrPort{}, fmt.Errorf("debug: %q is refused: %s; give 127.0.0.1:PORT or [::1]:PORT", address, why)
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return refuse("it is not host:port")
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return refuse("the port is not a number up to 65535")
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	if host == "" {
		return refuse("without a host it would be open to the network")
	}
	ip, err := netip.ParseAddr(host)
	switch {
	case err != nil:
		return refuse("the host is no IP address")
	case !ip.Unmap().IsLoopback() || ip.Zone() != "":
		return refuse("what is shown there is for this machine alone, and the host is not a loopback address")
	}
	return netip.AddrPortFrom(ip.Unmap(), uint16(number)), nil
}

// local keeps out what a web page can make a browser on this machine send: by a
// name that was made to resolve to loopback, or to the address itself.
func local(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		ip, err := netip.ParseAddr(host)
		if host != "localhost" && (err != nil || !ip.Unmap().IsLoopback()) && host != "[::1]" {
			http.Error(w, "ask for this by a loopback address", http.StatusMisdirectedRequest)
			return
		}
		site := r.Header.Get("Sec-Fetch-Site")
		if r.Header.Get("Origin") != "" || site != "" && site != "none" && site != "same-origin" {
			http.Error(w, "web pages are not answered", http.StatusForbidden)
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	})
}

// debugger answers on the debug listener.
type debugger struct{ cfg DebugConfig }

const index = `links      /debug/links      tunnels: who, since when, round trip, what they carry
sessions   /debug/sessions   sessions on the tunnels: target, bytes, age, stalled, who
requests   /debug/requests   requests and raw sessions under way: who, target, bytes, age
profiles   /debug/pprof/NAME go tool pprof: allocs block goroutine heap mutex threadcreate, profile?seconds=N (CPU), trace?seconds=N

The first three are JSON, and text with ?format=text; ?cluster=NAME shows one cluster, ?limit=N that many (1000).
`

func (d *debugger) index(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	d.wrote(fmt.Fprint(w, index))
}

// wrote notes an answer that could not be written: the asker has gone.
func (d *debugger) wrote(_ int, err error) {
	if err != nil {
		d.cfg.Logger.Debug("a debug answer could not be written", "error", err)
	}
}

// view is what one page shows.
type view interface {
	// table returns the columns of the text form and its rows.
	table() (columns []string, rows [][]string)
}

func (d *debugger) answer(w http.ResponseWriter, r *http.Request, v view) {
	if r.URL.Query().Get("format") == "text" {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		d.wrote(fmt.Fprint(w, textTable(v)))
		return
	}
	body, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	d.wrote(w.Write(append(body, '\n')))
}

// limit returns how many things are asked for.
func limit(r *http.Request) (int, error) {
	text := r.URL.Query().Get("limit")
	if text == "" {
		return defaultLimit, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > mostLimit {
		return 0, fmt.Errorf("limit: give a number from 1 to %d", mostLimit)
	}
	return n, nil
}

func (d *debugger) links(w http.ResponseWriter, r *http.Request) {
	d.answer(w, r, d.cfg.Links.view(r.URL.Query().Get("cluster")))
}

func (d *debugger) sessions(w http.ResponseWriter, r *http.Request) {
	n, err := limit(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	d.answer(w, r, d.cfg.Links.sessions(r.URL.Query().Get("cluster"), n, d.cfg.Live))
}

func (d *debugger) requests(w http.ResponseWriter, r *http.Request) {
	n, err := limit(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	d.answer(w, r, d.cfg.Live.view(r.URL.Query().Get("cluster"), n))
}
