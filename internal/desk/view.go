package desk

import (
	"errors"
	"slices"
	"strings"
	"time"

	"chaperone.dev/chaperone/internal/approval"
	"chaperone.dev/chaperone/internal/desk/api"
	"chaperone.dev/chaperone/pkg/policy"
)

// visible tells whether the person may see the request: who may answer it,
// now or once it is escalated, and admins.
func (c *caller) visible(i *item) bool {
	if c.admin {
		return true
	}
	r, p := i.record.Request, c.person.Principal()
	return r.From.Matches(p) || slices.ContainsFunc(r.Escalate, func(e policy.EscalationSpec) bool { return e.To.Matches(p) })
}

// view is the request as the person sees it.
func (c *caller) view(i *item, now time.Time) api.View {
	r := i.record.Request
	v := api.View{Request: r, State: i.state(now), Message: i.record.Message, Changed: i.record.Changed, Votes: []api.Vote{}}
	answered := false
	for _, vote := range i.votes {
		v.Votes = append(v.Votes, api.Vote{By: vote.By, Verdict: vote.Verdict, Via: vote.Via, Reason: vote.Reason, Standing: policy.Duration(vote.Standing), At: vote.At})
		if vote.At.After(v.Changed) {
			v.Changed = vote.At
		}
		answered = answered || vote.By.Subject == c.person.Subject && vote.By.Issuer == c.person.Issuer
	}
	err := approval.MayAnswer(r, c.person, now)
	switch {
	case v.State != approval.StatePending:
		v.MayNot = "It is " + string(v.State) + "."
	case answered:
		v.MayNot = "You have answered."
	case errors.Is(err, approval.ErrSelf):
		v.MayNot = "The job acts for you, and nobody answers for a job of their own."
	case err != nil:
		v.MayNot = notAsked(r, c.person)
	default:
		v.May = true
	}
	if left := r.Expires.Sub(now); left > 0 && v.State == approval.StatePending {
		v.Left = int64((left + time.Second - 1) / time.Second)
	}
	return v
}

// notAsked says from when on a person may answer, if ever.
func notAsked(r approval.Request, p approval.Person) string {
	for _, e := range r.Escalate {
		if e.To.Matches(p.Principal()) {
			return "You may answer from " + r.Created.Add(time.Duration(e.After)).UTC().Format("15:04:05") + " UTC on, if nobody has by then."
		}
	}
	return "You are not among those who are asked."
}

// find returns the request whose id is given, or the only one that the person
// may see whose id begins so.
func (d *Desk) find(c *caller, id string) (*item, error) {
	const shortest = 1
	id = strings.ToLower(id)
	if !strings.HasPrefix(id, "a-") {
		id = "a-" + id
	}
	var found *item
	for _, i := range d.board.all() {
		switch {
		case !strings.HasPrefix(i.record.Request.ID, id) || len(id) < len("a-")+shortest || !c.visible(i):
		case found != nil:
			return nil, refuse(400, api.CodeBadRequest, "More than one request begins with %q: give more of it.", id)
		default:
			found = i
		}
	}
	if found == nil {
		return nil, refuse(404, api.CodeNotFound, "There is no such request for approval, or it is not for you to see.")
	}
	return found, nil
}
