// Command provider is an OpenID Connect provider for tests: it serves discovery
// and its keys over TLS (https://openid.net/specs/openid-connect-discovery-1_0.html)
// and signs whatever claims it is asked for, good or bad.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	jose "github.com/go-jose/go-jose/v4"
)

// maxClaims bounds what is signed.
const maxClaims = 64 << 10

func main() {
	listen := flag.String("listen", "", "HOST:PORT to serve at, which is the issuer too")
	cert := flag.String("cert", "", "PEM file of the serving certificate")
	key := flag.String("key", "", "PEM file of its key")
	signing := flag.String("signing-key", "", "file with the key that signs, made when it is not there")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, *listen, *cert, *key, *signing)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "provider:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends.
func run(ctx context.Context, listen, cert, key, signing string) error {
	p, err := newProvider("https://"+listen, signing)
	if err != nil {
		return err
	}
	server := &http.Server{
		Addr: listen, Handler: p.handler(), ReadHeaderTimeout: 10 * time.Second,
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12},
	}
	ended := make(chan error, 1)
	go serve(server, cert, key, ended)
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return errors.Join(server.Close(), <-ended)
	}
}

// serve ends when the server is closed, and sends one result.
func serve(server *http.Server, cert, key string, ended chan<- error) {
	err := server.ListenAndServeTLS(cert, key)
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	ended <- err
}

// provider signs with one key, which its own key set has, and with a second one
// of the same name, which nobody knows.
type provider struct {
	issuer        string
	keys          jose.JSONWebKeySet
	known, forged jose.Signer
}

func newProvider(issuer, file string) (*provider, error) {
	known, err := signingKey(file)
	if err != nil {
		return nil, err
	}
	forged, err := newKey(known.KeyID)
	if err != nil {
		return nil, err
	}
	p := &provider{issuer: issuer, keys: jose.JSONWebKeySet{Keys: []jose.JSONWebKey{known.Public()}}}
	for to, key := range map[*jose.Signer]jose.JSONWebKey{&p.known: known, &p.forged: forged} {
		if *to, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, nil); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// signingKey reads the key, or makes it.
func signingKey(file string) (jose.JSONWebKey, error) {
	var key jose.JSONWebKey
	text, err := os.ReadFile(file)
	if err == nil {
		return key, json.Unmarshal(text, &key)
	}
	if !errors.Is(err, os.ErrNotExist) {
		return key, err
	}
	if key, err = newKey(rand.Text()); err != nil {
		return key, err
	}
	if text, err = json.Marshal(key); err != nil {
		return key, err
	}
	return key, os.WriteFile(file, text, 0o600)
}

func newKey(id string) (jose.JSONWebKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	return jose.JSONWebKey{Key: key, KeyID: id, Algorithm: string(jose.ES256), Use: "sig"}, err
}

func (p *provider) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", p.discovery)
	mux.HandleFunc("GET /keys", p.keySet)
	mux.HandleFunc("POST /token", p.token)
	return mux
}

// discovery is the provider's metadata.
func (p *provider) discovery(w http.ResponseWriter, _ *http.Request) {
	answer(w, map[string]any{
		"issuer": p.issuer, "jwks_uri": p.issuer + "/keys", "token_endpoint": p.issuer + "/token",
		"authorization_endpoint": p.issuer + "/authorize", "response_types_supported": []string{"id_token"},
		"subject_types_supported": []string{"public"}, "id_token_signing_alg_values_supported": []string{string(jose.ES256)},
	})
}

func (p *provider) keySet(w http.ResponseWriter, _ *http.Request) { answer(w, p.keys) }

func answer(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(value) // a caller that is gone needs no answer
}

// token signs the body, a JSON object of claims. With ?key=forged it signs with a
// key that is not in the key set.
func (p *provider) token(w http.ResponseWriter, r *http.Request) {
	claims := map[string]any{}
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxClaims))
	decoder.UseNumber()
	if err := decoder.Decode(&claims); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	signer := p.known
	if r.URL.Query().Get("key") == "forged" {
		signer = p.forged
	}
	if token, err := sign(signer, claims); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	} else {
		fmt.Fprint(w, token)
	}
}

func sign(signer jose.Signer, claims map[string]any) (string, error) {
	text, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	signed, err := signer.Sign(text)
	if err != nil {
		return "", err
	}
	return signed.CompactSerialize()
}
