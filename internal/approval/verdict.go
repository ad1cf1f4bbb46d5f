package approval

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"chaperone.dev/chaperone/pkg/policy"
)

// Why an answer does not count.
var (
	// ErrNotFound: no node asks under that id.
	ErrNotFound = errors.New("there is no such request for approval")
	// ErrOver: it has expired, or nobody waits for it any more.
	ErrOver = errors.New("the request is over")
	// ErrNotAsked: the person is not, or not yet, among those who may answer.
	ErrNotAsked = errors.New("the person is not asked")
	// ErrSelf: it is the person that the job acts for.
	ErrSelf = errors.New("nobody answers for a job of their own")
	// ErrDigest: the answer is to something else than what is asked.
	ErrDigest = errors.New("the answer is to something else than what is asked")
	// ErrVoted: the person has answered already.
	ErrVoted = errors.New("the person has answered already")
	// ErrStanding: an answer may not stand for that long.
	ErrStanding = errors.New("an answer may not stand for that long")

	errReplayed   = errors.New("the answer was given to another request")
	errUnreadable = errors.New("the answer can't be read")
)

// ErrDecided is returned for an answer that comes when others have decided.
type ErrDecided struct {
	Outcome State    // StateApproved (or StateUsed) or StateDenied
	By      []Person // whose votes decided it
}

func (e ErrDecided) Error() string {
	verb := "denied"
	if e.Outcome != StateDenied {
		verb = "approved"
	}
	if len(e.By) == 0 {
		return "already " + verb
	}
	text := "already " + verb + " by " + e.By[0].String()
	for _, p := range e.By[1:] {
		text += ", " + p.String()
	}
	return text
}

// skew is by how much the clocks of the authority and of a node may differ.
const skew = time.Minute

// MayAnswer tells whether the person may answer the request at the time: nil,
// or an error that wraps [ErrSelf] or [ErrNotAsked].
func MayAnswer(r Request, p Person, at time.Time) error {
	if p.same(Person{Subject: r.Principal.Subject, Issuer: r.Principal.Issuer, IssuerURL: r.IssuerURL}) {
		return fmt.Errorf("%s: %w", p, ErrSelf)
	}
	if r.From.Matches(p.Principal()) {
		return nil
	}
	for _, e := range r.Escalate {
		if e.To.Matches(p.Principal()) {
			if from := r.Created.Add(time.Duration(e.After)); at.Before(from) {
				return fmt.Errorf("%s is asked from %s on: %w", p, from.UTC().Format(time.RFC3339), ErrNotAsked)
			}
			return nil
		}
	}
	return fmt.Errorf("%s: %w", p, ErrNotAsked)
}

// Decide tells what the votes come to at the time, and whose they are: pending,
// approved, denied or expired. The votes' signatures were verified before; of
// the rest nothing is taken on trust: a vote that is not for this request, is
// late, or is of somebody who may not answer counts for nothing. One who says
// no decides, wherever the vote stands among the others.
func Decide(r Request, votes []Vote, now time.Time) (State, []Person) {
	var yes []Person
	for _, v := range votes {
		if check(r, v, now) != nil || slices.ContainsFunc(yes, v.By.same) {
			continue
		}
		if v.Verdict == No {
			return StateDenied, []Person{v.By}
		}
		yes = append(yes, v.By)
	}
	if len(yes) >= max(r.Count, 1) {
		return StateApproved, yes
	}
	if !now.Before(r.Expires) {
		return StateExpired, nil
	}
	return StatePending, yes
}

// check tells why one vote, whose signature is good, does not count.
func check(r Request, v Vote, now time.Time) error {
	switch {
	case v.Request != r.ID || v.Cluster != r.Cluster || v.Node != r.Node || v.Session != r.Session:
		return errReplayed
	case v.Digest != r.Digest:
		return ErrDigest
	case v.Verdict != Yes && v.Verdict != No:
		return fmt.Errorf("the verdict is %q: %w", v.Verdict, errUnreadable)
	case v.At.Before(r.Created.Add(-skew)):
		return fmt.Errorf("it was given before it was asked for (do the clocks of node and authority agree?): %w", errReplayed)
	case v.At.After(now.Add(skew)):
		return fmt.Errorf("it is from the future (do the clocks of node and authority agree?): %w", errReplayed)
	case !v.At.Before(r.Expires), !now.Before(r.Expires):
		return fmt.Errorf("the time to answer is over: %w", ErrOver)
	case !v.Until.After(v.At), !now.Before(v.Until), v.Until.After(r.Expires):
		return fmt.Errorf("the answer's own time is over, or longer than the request's: %w", ErrOver)
	case v.Standing < 0 || v.Standing > r.Standing || v.Standing > 0 && v.Verdict != Yes:
		return fmt.Errorf("%s, at most %s: %w", v.Standing, r.Standing, ErrStanding)
	}
	return MayAnswer(r, v.By, v.At)
}

// same tells whether they are one person, whatever name and groups they have.
func (p Person) same(q Person) bool {
	return p.Subject == q.Subject && (p.Issuer == q.Issuer || p.IssuerURL != "" && p.IssuerURL == q.IssuerURL)
}

// reason is the code of an event that tells of an answer that didn't count.
func reason(err error) string {
	switch {
	case errors.Is(err, ErrDigest):
		return "digest"
	case errors.Is(err, ErrOver):
		return "late"
	case errors.Is(err, errReplayed), errors.Is(err, ErrVoted):
		return "replayed"
	case errors.Is(err, ErrSelf):
		return "self"
	case errors.Is(err, ErrNotAsked):
		return "not_asked"
	case errors.Is(err, ErrStanding):
		return "standing"
	}
	return "signature"
}

// retried tells whether an approved request is run by being sent again.
func (r Request) retried() bool { return r.Mode == policy.ModeRetry }
