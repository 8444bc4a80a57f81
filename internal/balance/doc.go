// Package balance spreads work over the endpoints of one thing, such as the API
// servers of a cluster, and knows which of them can be used.
//
//	set, err := balance.New(balance.Config{Endpoints: []string{"10.0.0.1:6443", "10.0.0.2:6443"}, Probe: probe, …})
//	go set.Run(ctx)
//	lease, err := set.Pick(ctx)   // one endpoint that works, or a *NoneError at once
//	conn, err := dial(lease.Address())
//	if err != nil { lease.Failed(err) }
//	lease.Done()                  // when the work is over
//
// # Health
//
// An endpoint that was not probed yet counts as working, so that nobody waits at
// the start. The first probe that fails before any has succeeded takes it out;
// later it takes as many in a row as Config.Fall says. A connection that cannot be
// made ([Lease.Failed]) takes it out at once. It comes back after as many good
// probes in a row as Config.Rise says.
//
// While an endpoint works, and the last probe was good, it is probed once an
// interval, moved at random by up to a tenth so that probes of many agents do not
// meet. Otherwise it is probed once a second, or once an interval where that is
// shorter, and sooner when somebody asks for an endpoint and there is none.
//
// # Names
//
// With Config.Resolve, an endpoint whose host is a name stands for all addresses
// that the name has. It is looked up once an interval, and what was found before
// holds while that fails.
//
// # Limitations
//
// Without Config.Probe an endpoint is never taken out: nothing would bring it back.
package balance
