package policy

import "context"

// Options are what depends on where a policy is read.
type Options struct {
	// Agent refuses what only a hub knows: clusters and impersonate. Its rules
	// would not do what they say.
	Agent bool
}

// Policy is a checked policy. It never changes and is safe for concurrent use. A
// nil policy denies everything.
type Policy struct {
	document Document
	rules    []rule
	index    [kinds]index
}

// Parse reads a policy file. The error names every field that is wrong, with its
// path and line.
func Parse(text []byte, o Options) (*Policy, error) {
	document, lines, err := decode(text)
	if err != nil {
		return nil, err
	}
	return compile(document, o, lines)
}

// Compile checks a document. The error names every field that is wrong with its
// path.
func Compile(d Document, o Options) (*Policy, error) { return compile(d, o, nil) }

// Document returns what the policy was made of. The caller must not change it.
func (p *Policy) Document() Document { return p.document }

// Authorize implements [Authorizer]. It never fails.
func (p *Policy) Authorize(_ context.Context, r Request) (Decision, error) { return p.Decide(r), nil }
