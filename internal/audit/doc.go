// Package audit records who did what through Culvert: one line of JSON for each
// request, and lines at the start, during and at the end of each session.
//
// # Lines
//
// An [Event] is what one line says. docs/audit.md lists the fields. A line is
// valid JSON without a line break in it, whatever the strings of the event are:
// what a terminal or a parser could take for something else is escaped, and each
// field and with them the line is bounded ([MaxLine]).
//
// # What never gets into a line
//
// An event has no field for a header, a query, a body or a credential. Paths are
// cut at the query, and what has the form of a credential in any text is replaced
// by [Redacted].
//
// # Sinks
//
// A [Log] writes to a file that it rotates, to a stream, and to a webhook in
// batches; see [Config]. Each sink has a queue of its own, bounded in bytes, and
// one goroutine that empties it. A failing sink is tried again until it works.
// When its queue is full, [WhenFull] decides: the events are lost and counted, in
// a metric and in the next line that is written; or callers wait.
//
// # Usage
//
//	log, err := audit.New(audit.Config{File: &audit.FileConfig{Path: "audit.log"}}, audit.Options{Logger: logger})
//	defer log.Close(ctx)
//
//	if err := log.Admit(ctx); err != nil { … }     // before anything is done
//	log.Record(&audit.Event{Stage: audit.StageRequest, …})
//
//	session := log.Begin(event, read)              // writes session-start
//	session.End(func(e *audit.Event) { … })        // writes session-end
//
// # Limitations
//
// A process that is killed loses the events that its queues hold: those of the
// last moments (20 ms for a file), or of the time that a sink does not work. A
// machine that loses power also loses what its system had not written to disk.
// Webhooks get a batch again when its answer was lost; batches have an id.
package audit
