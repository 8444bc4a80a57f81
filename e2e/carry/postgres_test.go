package carry

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
)

func TestPostgres(t *testing.T) {
	port := fmt.Sprint(the.postgres.Addr.Port())
	// As psql looks for it: /DIR/.s.PGSQL.PORT.
	dir := t.TempDir()
	forward := start(t, "forward", "edge-1", "0:db.prod:"+port, "unix:"+filepath.Join(dir, ".s.PGSQL.5432")+":db.prod:"+port)
	host, local, err := net.SplitHostPort(forward.listener(t, "edge-1 db.prod:"+port))
	must(t, err)
	for name, where := range map[string][]string{
		"F2: psql through culvert forward": {"--host", host, "--port", local}, "F2: psql through a forwarded Unix socket": {"--host", dir, "--port", "5432"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd, err := the.postgres.PSQL(t.Context(), append(where, "--command", "select count(*), sum(length(md5(n::text))) from generate_series(1, 100000) n",
				"--command", "select repeat(md5(n::text), 32) from generate_series(1, 10000) n")...)
			must(t, err)
			out, err := output(cmd)
			if err != nil || !strings.HasPrefix(out, "100000|3200000\n") || len(out) < 10000*1024 {
				t.Errorf("%d bytes, %v", len(out), err)
			}
		})
	}
	t.Run("F2: a command runs once everything is ready, and its exit code is culvert's", func(t *testing.T) {
		cmd := command(t.Context(), "forward", "edge-1", "0:db.prod:"+port, "--", "sh", "-c", `echo "$CULVERT_FORWARD_1_HOST $CULVERT_FORWARD_1_PORT $CULVERT_FORWARD_1"; exit 9`)
		out, err := output(cmd)
		var host, port, address string
		if n, scanErr := fmt.Sscanln(out, &host, &port, &address); scanErr != nil || n != 3 || net.JoinHostPort(host, port) != address || exitCode(err) != 9 {
			t.Errorf("%q, %v", out, err)
		}
	})
}
