package measure

import "testing"

func TestUnderPressure(t *testing.T) {
	const limits = "100\t200\t300\n"
	stat := func(mem string) string {
		return "sockets: used 9\nTCP: inuse 4 orphan 0 tw 1 alloc 4 mem " + mem + "\nUDP: inuse 1 mem 900\n"
	}
	for title, c := range map[string]struct {
		limits, sockstat string
		want, fails      bool
	}{
		"below":         {limits, stat("99"), false, false},
		"reached":       {limits, stat("100"), true, false},
		"no limits":     {"", stat("1"), false, true},
		"strange limit": {"x 2 3", stat("1"), false, true},
		"no line":       {limits, "UDP: inuse 1 mem 9\n", false, true},
		"strange use":   {limits, stat("many"), false, true},
	} {
		t.Run(title, func(t *testing.T) {
			got, err := underPressure([]byte(c.limits), []byte(c.sockstat))
			if got != c.want || (err != nil) != c.fails {
				t.Errorf("got %v %v", got, err)
			}
		})
	}
}
