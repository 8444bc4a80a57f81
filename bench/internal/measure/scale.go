package measure

import "time"

// Scale is the size of a run.
type Scale struct {
	// Rounds is how often every trial is run.
	Rounds int
	// HeavyRounds is the same for trials that take long to set up.
	HeavyRounds int
	// Warmup passes before each window, Window counts.
	Warmup, Window time.Duration
	// Setups is how many workers set up sessions at once.
	Setups int
	// Many is how many sessions "many" are: 16 in downloads, 64 in ping-pongs.
	Bulk, PingPong int
	// Beside is how many downloads go on beside a ping-pong.
	Beside int
	// ManyStalls is how many readers are stalled at once in that trial.
	ManyStalls int
	// IdleSessions and IdleAgents are held at once.
	IdleSessions, IdleAgents int
	// Clients and ManyClients make HTTP requests at once.
	Clients, ManyClients int
	// Check is how many bytes are compared in each direction, Frames how many move
	// when allocations are counted.
	Check, Frames int64
	// Settle is the time between two looks at the memory of a process.
	Settle time.Duration
}

// Full is the scale of figures that are quoted.
func Full() Scale {
	return Scale{
		Rounds: 5, HeavyRounds: 5, Warmup: 500 * time.Millisecond, Window: 2 * time.Second,
		Setups: 16, Bulk: 16, PingPong: 64, Beside: 4, ManyStalls: 1000,
		IdleSessions: 2000, IdleAgents: 200, Clients: 64, ManyClients: 256,
		Check: 256 << 20, Frames: 1 << 30, Settle: 300 * time.Millisecond,
	}
}

// Quick takes less than a minute. Its figures show large changes only.
func Quick() Scale {
	s := Full()
	s.Rounds, s.HeavyRounds = 3, 1
	s.Warmup, s.Window = 80*time.Millisecond, 250*time.Millisecond
	s.ManyStalls, s.IdleSessions, s.IdleAgents = 200, 500, 50
	s.Check, s.Frames = 32<<20, 256<<20
	s.Settle = 100 * time.Millisecond
	return s
}

// Tiny proves that everything works, and measures nothing.
func Tiny() Scale {
	return Scale{
		Rounds: 1, HeavyRounds: 1, Warmup: 5 * time.Millisecond, Window: 60 * time.Millisecond,
		Setups: 2, Bulk: 3, PingPong: 4, Beside: 2, ManyStalls: 5,
		IdleSessions: 10, IdleAgents: 3, Clients: 3, ManyClients: 6,
		Check: 1 << 20, Frames: 4 << 20, Settle: 20 * time.Millisecond,
	}
}
