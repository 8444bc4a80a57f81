// Package rawhttp sends HTTP requests byte for byte as a test has them, in HTTP/1.1
// and HTTP/2: a client library would mend or refuse what these tests send.
package rawhttp
