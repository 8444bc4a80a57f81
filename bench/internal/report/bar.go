package report

import "fmt"

// Bar is what a measure of Culvert must reach in a release.
type Bar struct {
	// Absolute bars hold for the value itself, others for its ratio to the
	// reference of the same run.
	Absolute bool
	// AtLeast tells that more is better.
	AtLeast bool
	// Limit must be reached, Goal is where the work goes on to.
	Limit, Goal float64
}

func atLeast(limit, goal float64) Bar { return Bar{AtLeast: true, Limit: limit, Goal: goal} }
func atMost(limit, goal float64) Bar  { return Bar{Limit: limit, Goal: goal} }

func absolute(b Bar) Bar {
	b.Absolute = true
	return b
}

// Bars are those of the first release, by the id of their measure.
var Bars = map[string]Bar{
	"download_1":                      atLeast(0.75, 0.95),
	"upload_1":                        atLeast(0.75, 0.95),
	"download_16":                     atLeast(0.72, 0.95),
	"upload_16":                       atLeast(0.72, 0.95),
	"cpu_per_gib":                     atMost(1.45, 1.10),
	"pingpong_1_p50":                  atMost(1.20, 1.05),
	"pingpong_64_rps":                 atLeast(0.95, 1.15),
	"setup_rate":                      atLeast(3.5, 6),
	"pingpong_beside_bulk_p50":        atMost(0.07, 0.03),
	"pingpong_beside_stall_share":     absolute(atLeast(0.95, 1)),
	"pingpong_beside_1000_stalls_p99": absolute(atMost(2, 1.2)),
	"stall_growth_mib":                absolute(atMost(stallLimit, stallLimit)),
	"idle_session_kib":                absolute(atMost(12, 6)),
	"idle_agent_kib":                  absolute(atMost(100, 50)),
	"allocs_per_frame":                absolute(atMost(0.05, 0.05)),
	"http_64_rps":                     atLeast(0.90, 1.5),
	"http2_64_rps":                    atLeast(0.90, 1.5),
	"http_kube_64_rps":                atLeast(0.90, 1.2),
	"integrity":                       absolute(atLeast(1, 1)),
	"half_close":                      absolute(atLeast(1, 1)),

	"download_1_rtt100_loss0": absolute(atLeast(0.90*lineMiB, 0.95*lineMiB)),
	"upload_1_rtt100_loss0":   absolute(atLeast(0.90*lineMiB, 0.95*lineMiB)),
	"download_1_rtt50_loss1":  atLeast(0.8, 1),
	"upload_1_rtt50_loss1":    atLeast(0.8, 1),
}

// lineMiB is 1 Gbit/s in MiB a second.
const lineMiB = 1e9 / 8 / (1 << 20)

// stallLimit is the most that a reader who stopped may hold, in MiB: half of the
// largest window of a session, which only a long path needs.
const stallLimit = 16

// Met tells whether the row reaches the bar; known is false when the row has no
// ratio for a bar on ratios.
func (b Bar) Met(r Row) (met, known bool) {
	value := r.Median
	if !b.Absolute {
		if r.Ratio == nil {
			return false, false
		}
		value = *r.Ratio
	}
	if b.AtLeast {
		return value >= b.Limit, true
	}
	return value <= b.Limit, true
}

// String returns the bar for a table, such as ">= 0.75 of ref".
func (b Bar) String() string {
	sign, of := "<=", " of ref"
	if b.AtLeast {
		sign = ">="
	}
	if b.Absolute {
		of = ""
	}
	return fmt.Sprintf("%s %.4g%s", sign, b.Limit, of)
}
