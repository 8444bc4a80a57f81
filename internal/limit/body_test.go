package limit

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/culvertdev/culvert/internal/fault"
)

func TestBody(t *testing.T) {
	const bound = 1000
	l := limits(t, Config{Body: *resource.NewQuantity(bound, resource.BinarySI)})
	for _, size := range []int{0, 1, bound - 1, bound, bound + 1, 2 * bound} {
		t.Run(fmt.Sprintf("N10: of a body without a length, %d bytes pass if they may", size), func(t *testing.T) {
			for name, reader := range map[string]func(io.Reader) io.Reader{
				"whole": func(r io.Reader) io.Reader { return r }, "bytewise": iotest.OneByteReader, "end with data": iotest.DataErrReader,
			} {
				r := httptest.NewRequest(http.MethodPost, "/", nil)
				r.Body, r.ContentLength = io.NopCloser(reader(bytes.NewReader(make([]byte, size)))), -1
				if err := l.Body(r); err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(r.Body)
				if len(got) > bound || (err == nil) != (size <= bound) || err == nil && len(got) != size {
					t.Errorf("%s: %d bytes, %v", name, len(got), err)
				}
				if err == nil {
					continue
				}
				if f := fault.As(err); f == nil || !strings.Contains(err.Error(), "larger than the 1000 bytes") {
					t.Errorf("%s: %v", name, err)
				}
				if n, again := r.Body.Read(make([]byte, 1)); n != 0 || fault.As(again) == nil {
					t.Errorf("%s: then %d, %v", name, n, again)
				}
			}
		})
	}
	t.Run("N10: a length that is too large is refused at once", func(t *testing.T) {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(strings.Repeat("x", bound+1)))
		if err := l.Body(r); fault.As(err) == nil {
			t.Errorf("%v", err)
		}
		r = httptest.NewRequest(http.MethodPost, "/", strings.NewReader(strings.Repeat("x", bound)))
		body := r.Body
		if err := l.Body(r); err != nil || r.Body != body {
			t.Errorf("%v; a body of known length is bounded by the server already", err)
		}
	})
}
