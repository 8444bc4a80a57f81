package https

import (
	"net/http"

	"github.com/culvertdev/culvert/internal/identity"
)

// checkOrigin is [identity.CheckOrigin].
func checkOrigin(r *http.Request) error { return identity.CheckOrigin(r) }
