package identity

import (
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"sync/atomic"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// recorder stands in the place of an API server and answers every request with
// what reached it. The connection of its agent is HTTP/2 over verified TLS.
type recorder struct {
	server     *httptest.Server
	kubeconfig string
	agentToken string
	// requests counts those that reached it, without the probes of agents.
	requests atomic.Int64
}

// recorded is the recorder's answer.
type recorded struct {
	Method, Path    string
	Header, Trailer http.Header
	Body            string
}

func startRecorder(kubeconfig string) (*recorder, error) {
	r := &recorder{kubeconfig: kubeconfig, agentToken: rand.Text()}
	r.server = httptest.NewUnstartedServer(http.HandlerFunc(r.count))
	r.server.EnableHTTP2 = true
	r.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo) // of clients that hang up
	r.server.StartTLS()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.server.Certificate().Raw})
	return r, os.WriteFile(kubeconfig, testbed.Kubeconfig(r.server.URL, ca, r.agentToken), 0o600)
}

func (r *recorder) count(w http.ResponseWriter, req *http.Request) {
	// Whatever an agent sends for somebody has a user.
	if probe := req.UserAgent() == "culvert-agent-probe" && req.URL.Path == "/readyz" && req.Header["Impersonate-User"] == nil; !probe {
		r.requests.Add(1)
	}
	record(w, req)
}

// record answers with what arrived.
func record(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	_ = json.NewEncoder(w).Encode(recorded{ // a caller that is gone needs no answer
		Method: r.Method, Path: r.RequestURI, Header: r.Header, Trailer: r.Trailer, Body: string(body),
	})
}
