package oidc

import (
	"errors"
	"net/url"
)

// plain leaves out the request of an error, which is the provider's business.
func plain(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}
