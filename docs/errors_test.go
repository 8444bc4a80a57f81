package docs_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/culvertdev/culvert/internal/answer"
	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/wire"
)

func TestErrors(t *testing.T) {
	documented := sections(read(t, "errors.md"))
	t.Run("every code has its status and reason", func(t *testing.T) {
		var rows []string
		for line := range strings.Lines(documented["Codes"]) {
			if row := strings.Split(line, "|"); len(row) > 4 && strings.Contains(row[1], "`") {
				rows = append(rows, strings.TrimSpace(row[1])+strings.TrimSpace(row[2])+strings.TrimSpace(row[3]))
			}
		}
		var want []string
		for code := wire.Code(1); code.Known() == code; code++ {
			f := &fault.Error{Hop: wire.HopHub, Code: code}
			w := httptest.NewRecorder()
			status, err := answer.Write(w, httptest.NewRequest(http.MethodGet, "/", nil), f)
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, fmt.Sprintf("`%s`%d`%s`", w.Header().Get(answer.HeaderError), status, f.Reason()))
		}
		same(t, "codes", rows, want)
	})
	t.Run("every hop is there", func(t *testing.T) {
		var want []string
		for hop := wire.Hop(0); hop == 0 || hop.String() != wire.Hop(0).String(); hop++ {
			want = append(want, hop.String())
		}
		same(t, "hops", cells(documented["Hops"], 0), want)
	})
}
