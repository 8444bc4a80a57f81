package policy

// Explanation is a decision with what each rule had to say.
type Explanation struct {
	Decision

	// Rules are in the order of the policy.
	Rules []RuleOutcome
}

// RuleOutcome is what one rule says of a request.
type RuleOutcome struct {
	Name   string
	Effect Effect
	// Matches tells whether the rule is for the request. Of an impersonation, it is
	// for one part of it at least.
	Matches bool
	// Why is a phrase: "matches", what does not match, or why the rule matches
	// though it does not name what is asked for.
	Why string
}

// Explain decides as [Policy.Decide] does and tells about all rules. It is for
// people who write policies: what it says is not for the caller of a request.
func (p *Policy) Explain(r Request) Explanation {
	e := Explanation{Decision: p.Decide(r)}
	if p == nil {
		return e
	}
	q, err := newQuery(&r)
	if err != nil {
		return e
	}
	asked := []query{q}
	if r.Anything {
		asked = nil
		for _, q.kind = range reached {
			asked = append(asked, q)
		}
	}
	if r.Impersonate != nil {
		asked = nil
		for kind, values := range r.Impersonate.each() {
			for _, value := range values {
				one := q
				one.part, one.value = part(kind), value
				asked = append(asked, one)
			}
		}
	}
	for i := range p.rules {
		e.Rules = append(e.Rules, p.rules[i].outcome(asked))
	}
	return e
}

func (r *rule) outcome(asked []query) RuleOutcome {
	o := RuleOutcome{Name: r.name, Effect: Allow}
	if r.deny {
		o.Effect = Deny
	}
	var most verdict
	for i := range asked {
		asked[i].deny = r.deny
		v := r.match(&asked[i])
		if i == 0 || v.matches() && (!most.matches() || v < most) || !most.matches() && v > most {
			most = v
		}
	}
	o.Matches, o.Why = most.matches(), verdictText[most]
	return o
}
