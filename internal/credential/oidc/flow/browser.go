package flow

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	goidc "github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/culvertdev/culvert/internal/credential/oidc"
)

// loginTime is how long somebody may take to log in.
const loginTime = 5 * time.Minute

// answered is what the browser came back with.
type answered struct {
	code string
	err  error
}

// Browser logs in with a browser on this machine. show gets the URL that it has to open.
// The provider sends it back to http://127.0.0.1:port/callback; port 0 is any.
func Browser(ctx context.Context, config oidc.Config, port int, show func(url string)) (_ oidc.Login, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, loginTime, fmt.Errorf("nobody logged in within %v", loginTime))
	defer cancel()
	l, err := begin(ctx, config)
	if err != nil {
		return oidc.Login{}, err
	}
	defer l.client.CloseIdleConnections()
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return oidc.Login{}, fmt.Errorf("listen for the browser: %w", err)
	}
	l.oauth2.RedirectURL = "http://" + listener.Addr().String() + "/callback"
	state, nonce, verifier := rand.Text(), rand.Text(), oauth2.GenerateVerifier()
	answers := make(chan answered, 1)
	server := &http.Server{Handler: callback(state, answers), ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }() // ends with Close
	defer func() {
		// The page that says so is on its way.
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if server.Shutdown(grace) != nil {
			_ = server.Close() // a browser that keeps the connection
		}
		if served := <-ended; !errors.Is(served, http.ErrServerClosed) {
			err = errors.Join(err, served)
		}
	}()
	show(l.oauth2.AuthCodeURL(state, append(l.options, oauth2.S256ChallengeOption(verifier), goidc.Nonce(nonce))...))
	var got answered
	select {
	case got = <-answers:
	case <-ctx.Done():
		return oidc.Login{}, context.Cause(ctx)
	}
	if got.err != nil {
		return oidc.Login{}, got.err
	}
	token, err := l.oauth2.Exchange(l.context(ctx), got.code, oauth2.VerifierOption(verifier))
	if err != nil {
		return oidc.Login{}, refused(err)
	}
	return l.end(ctx, token, nonce)
}

// callback takes the first answer with the right state.
func callback(state string, answers chan<- answered) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /callback", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Referrer-Policy", "no-referrer")
		if subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(state)) != 1 {
			http.Error(w, "This is not the answer to the login that is under way.", http.StatusBadRequest)
			return
		}
		got := answered{code: q.Get("code")}
		text := "You can close this window and go back to the terminal.\n"
		switch {
		case q.Get("error") != "":
			got.err = fmt.Errorf("the provider refuses: %.64q %.200q", q.Get("error"), q.Get("error_description"))
			text = "The provider refuses the login. The terminal says why.\n"
		case got.code == "":
			got.err = errors.New("the provider sent the browser back without a code")
		}
		select {
		case answers <- got:
		default: // the first one counts
		}
		fmt.Fprint(w, text)
	})
	return mux
}
