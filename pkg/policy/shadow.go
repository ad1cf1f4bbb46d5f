package policy

// A policy with "enforce: shadow" decides by itself, and all that comes of it
// is a note beside the decision of the others: what it would have changed.

// opinion is what a shadow policy would have come to. The action is empty when
// nothing in it matched.
type opinion struct {
	action Action
	rule   string // empty: it could allow something in a session that the others don't open
	index  int    // of the rule in the policy, or -1
}

// alone asks the policy's rules as if there were no others. The function, if
// any, is told what each that is asked said.
func (p *compiledPolicy) alone(in *input, told func(index int, matched bool, err error)) opinion {
	first := map[Action]int{}
	for i := range p.rules {
		r := &p.rules[i]
		if !r.asks(in.about) {
			continue
		}
		matched, err := r.evaluate(in)
		if told != nil {
			told(i, matched, err)
		}
		then := r.rule.Then
		if err != nil {
			matched, then = true, Deny
		}
		if _, known := first[then]; matched && !known {
			first[then] = i
		}
	}
	for _, action := range []Action{Deny, Approve, Allow} {
		if i, ok := first[action]; ok {
			return opinion{action, p.rules[i].rule.Name, i}
		}
	}
	if in.about == aboutSession && p.allows() {
		return opinion{Allow, "", -1}
	}
	return opinion{index: -1}
}

// changedBy tells whether an enforced policy that came to the action would have
// changed the decision: by being stricter, or by allowing what nothing allows.
func (d *Decision) changedBy(action Action) bool {
	byDefault := d.Action == Deny && d.Policy == ""
	switch action {
	case Deny:
		return d.Action != Deny
	case Approve:
		return d.Action == Allow || byDefault
	case Allow:
		return byDefault
	}
	return false
}
