package flow

import (
	"context"
	"errors"

	"golang.org/x/oauth2"

	"github.com/culvertdev/culvert/internal/credential/oidc"
)

// Device logs in with a browser on another machine. show gets the page that it has to
// open and the code that is asked for there.
func Device(ctx context.Context, config oidc.Config, show func(page, code string)) (oidc.Login, error) {
	l, err := begin(ctx, config)
	if err != nil {
		return oidc.Login{}, err
	}
	defer l.client.CloseIdleConnections()
	if l.oauth2.Endpoint.DeviceAuthURL == "" {
		return oidc.Login{}, errors.New("the provider has no login for devices: leave out --device")
	}
	asked, err := l.oauth2.DeviceAuth(l.context(ctx))
	if err != nil {
		return oidc.Login{}, refused(err)
	}
	show(asked.VerificationURI, asked.UserCode)
	token, err := l.oauth2.DeviceAccessToken(l.context(ctx), asked)
	if err != nil {
		if r, ok := errors.AsType[*oauth2.RetrieveError](err); ok && r.ErrorCode == "expired_token" || errors.Is(err, context.DeadlineExceeded) {
			return oidc.Login{}, errors.New("nobody typed in the code in time")
		}
		return oidc.Login{}, refused(err)
	}
	return l.end(ctx, token, "")
}
