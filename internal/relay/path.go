package relay

import (
	"net/url"
	"strings"
)

// setPath makes u give path, which is escaped, byte for byte as its request
// target. The query of u is left alone.
func setPath(u *url.URL, path string) {
	u.Opaque, u.RawPath = "", ""
	if decoded, err := url.PathUnescape(path); err == nil {
		u.Path, u.RawPath = decoded, path
		if u.EscapedPath() == path {
			return
		}
	}
	// The path has bytes that do not belong in a URL, such as '|', and net/url
	// would escape them. As an opaque part they stay.
	u.Path, u.RawPath = "", ""
	u.Opaque = path
	if strings.HasPrefix(path, "//") {
		// net/url takes this for a host. The absolute form of the request
		// target says the same (RFC 9112 section 3.2.2), and HTTP/2 takes
		// scheme and host off it again.
		u.Opaque = "//" + u.Host + path
	}
}
