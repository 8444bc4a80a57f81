package identity

import (
	"errors"
	"fmt"
	"strings"
)

// Rule maps names of the hub to names on managed clusters.
type Rule struct {
	// From is a name at the hub. One "*" in it stands for any text, also none.
	From string `json:"from"`
	// To are the names that it becomes, in place of the prefixed one: exactly one
	// for a user, any number for a group. A "*" in one stands for what the "*" of
	// From stood for. None of them may begin with "system:", and where a caller's
	// own name would make one that does, or one that begins with the prefix, the
	// user is refused and the group left out.
	To []string `json:"to"`
}

// match returns what rule makes of name.
func (r Rule) match(name string) ([]string, bool) {
	if !globbed(r.From, name) {
		return nil, false
	}
	head, tail, _ := strings.Cut(r.From, wildcard)
	middle := name[len(head) : len(name)-len(tail)]
	to := make([]string, 0, len(r.To))
	for _, target := range r.To {
		to = append(to, strings.Replace(target, wildcard, middle, 1))
	}
	return to, true
}

const wildcard = "*"

// globbed says whether name is pattern, or what a pattern with one "*" stands for.
func globbed(pattern, name string) bool {
	head, tail, wild := strings.Cut(pattern, wildcard)
	if !wild {
		return pattern == name
	}
	return len(name) >= len(head)+len(tail) && strings.HasPrefix(name, head) && strings.HasSuffix(name, tail)
}

func anyGlobbed(patterns []string, name string) bool {
	for _, pattern := range patterns {
		if globbed(pattern, name) {
			return true
		}
	}
	return false
}

// problems of a rule whose users have one name each, and groups any number.
func (r Rule) problems(path string, user bool) []error {
	var problems []error
	if r.From == "" {
		problems = append(problems, fmt.Errorf("%s.from: is empty: name whom it is for", path))
	}
	if err := patternProblem(r.From); err != nil {
		problems = append(problems, fmt.Errorf("%s.from: %w", path, err))
	}
	if user && len(r.To) != 1 {
		problems = append(problems, fmt.Errorf("%s.to: has %d names: a user becomes exactly one", path, len(r.To)))
	}
	for i, to := range r.To {
		path := fmt.Sprintf("%s.to[%d]", path, i)
		switch head, _, wild := strings.Cut(to, wildcard); {
		case to == "" || !carried(to):
			problems = append(problems, fmt.Errorf("%s: %q cannot be a name: use no control characters and no space at its ends", path, to))
		case systemName(to):
			problems = append(problems, fmt.Errorf("%s: %q is a system name of the managed cluster: bind another name there", path, to))
		case wild && !strings.Contains(r.From, wildcard):
			problems = append(problems, fmt.Errorf("%s: %q has a * where from has none", path, to))
		case wild && patternProblem(to) != nil:
			problems = append(problems, fmt.Errorf("%s: %w", path, patternProblem(to)))
		case wild && head != "" && strings.HasPrefix(systemPrefix, head):
			problems = append(problems, fmt.Errorf("%s: %q could be completed to a system name of the managed cluster: begin it with something else", path, to))
		}
	}
	return problems
}

func patternProblem(pattern string) error {
	if strings.Count(pattern, wildcard) > 1 {
		return errors.New("has more than one *: write one rule for each")
	}
	return nil
}

// chosen says whether what a rule made of a caller's own name could be taken for
// what another caller is mapped to: it begins with prefix, by which callers without
// a rule are known, and the rule did not say so itself.
func chosen(rule Rule, i int, name, prefix string) bool {
	head, _, wild := strings.Cut(rule.To[i], wildcard)
	return wild && strings.HasPrefix(name, prefix) && !strings.HasPrefix(head, prefix)
}
