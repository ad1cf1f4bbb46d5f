package desk

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
	"unicode/utf8"

	"chaperone.dev/chaperone/internal/approval"
	"chaperone.dev/chaperone/internal/desk/api"
	"chaperone.dev/chaperone/pkg/event"
)

func (d *Desk) getWhoAmI(w http.ResponseWriter, _ *http.Request, c *caller) error {
	who := api.Who{Person: c.person, Admin: c.admin}
	if c.session != nil {
		who.CSRF = c.session.csrf
	}
	return writeJSON(w, who)
}

func (d *Desk) getApprovals(w http.ResponseWriter, r *http.Request, c *caller) error {
	state := r.URL.Query().Get("state")
	if state != "" && state != "pending" && state != "all" {
		return refuse(400, api.CodeBadRequest, "state: want \"pending\" or \"all\".")
	}
	now, list := d.now(), []api.View{}
	for _, i := range d.board.all() {
		if len(list) == api.MaxApprovals {
			break
		}
		if c.visible(i) && (state == "all" || i.state(now) == approval.StatePending) {
			list = append(list, c.view(i, now))
		}
	}
	return writeJSON(w, list)
}

func (d *Desk) getApproval(w http.ResponseWriter, r *http.Request, c *caller) error {
	i, err := d.find(c, r.PathValue("id"))
	if err != nil {
		return err
	}
	return writeJSON(w, c.view(i, d.now()))
}

func (d *Desk) postVote(w http.ResponseWriter, r *http.Request, c *caller) error {
	var v api.VoteRequest
	if err := readJSON(w, r, api.MaxBody, &v); err != nil {
		return err
	}
	i, err := d.find(c, r.PathValue("id"))
	if err != nil {
		return err
	}
	switch {
	case v.Verdict != approval.Yes && v.Verdict != approval.No:
		return refuse(400, api.CodeBadRequest, "verdict: want %q or %q.", approval.Yes, approval.No)
	case v.Digest == "":
		return refuse(400, api.CodeBadRequest, "digest: it is missing. It is that of the request which you were shown.")
	case len(v.Reason) > api.MaxReason || !utf8.ValidString(v.Reason):
		return refuse(400, api.CodeBadRequest, "reason: want at most %d bytes of UTF-8.", api.MaxReason)
	}
	ctx, cancel := context.WithTimeout(r.Context(), askTimeout)
	defer cancel()
	i, err = d.vote(ctx, c, i, v)
	if err != nil {
		return err
	}
	return writeJSON(w, c.view(i, d.now()))
}

// vote has the authority sign what a person answers, and returns the request
// with that answer. Its refusals are for the person.
func (d *Desk) vote(ctx context.Context, c *caller, i *item, v api.VoteRequest) (*item, error) {
	req := i.record.Request
	err := error(approval.ErrDigest)
	var votes []approval.Vote
	if subtle.ConstantTimeCompare([]byte(v.Digest), []byte(req.Digest)) == 1 {
		bucket, failed := d.buckets.Approvals.KV(ctx)
		if failed != nil {
			return nil, failed
		}
		votes, err = approval.Cast(ctx, bucket, d.signer, d.keys, approval.Vote{
			Request: req.ID, Cluster: req.Cluster, Node: req.Node, Session: req.Session, Digest: v.Digest,
			Verdict: v.Verdict, By: c.person, Via: c.via, Reason: v.Reason, Standing: time.Duration(v.Standing), At: d.now().UTC(),
		})
	}
	log := d.log.Info()
	if err != nil {
		log = d.log.Warn().Err(err)
	}
	log.Str("request", req.ID).Str("by", c.person.String()).Str("via", c.via).Str("verdict", string(v.Verdict)).Msg("an answer to a request for approval")
	if err == nil {
		return &item{record: i.record, votes: votes}, nil
	}
	reason, refused := refusal(err, req)
	if reason != "" {
		by := &event.Principal{Subject: c.person.Subject, Issuer: c.person.Issuer, Groups: c.person.Groups}
		d.audit(originOf(i), event.ApprovalRejected{Request: req.ID, By: by, Reason: reason, Message: "the sink did not sign it: " + brief(err)})
	}
	return nil, refused
}

// refusal says why an answer doesn't count. The reason is the code of it for
// who watches over refused ones; it is empty for what is nobody's fault.
func refusal(err error, r approval.Request) (reason string, refused error) {
	var decided approval.ErrDecided
	switch {
	case errors.As(err, &decided):
		return "", refuse(409, api.CodeConflict, "It is %s.", decided.Error())
	case errors.Is(err, approval.ErrVoted):
		return "", refuse(409, api.CodeConflict, "You have answered already.")
	case errors.Is(err, approval.ErrOver):
		return "late", refuse(410, api.CodeConflict, "The request is over: it has expired, or nobody waits for it any more.")
	case errors.Is(err, approval.ErrNotFound):
		return "", refuse(404, api.CodeNotFound, "There is no such request for approval any more.")
	case errors.Is(err, approval.ErrSelf):
		return "self", refuse(403, api.CodeForbidden, "The job acts for you, and nobody answers for a job of their own.")
	case errors.Is(err, approval.ErrNotAsked):
		return "not_asked", refuse(403, api.CodeForbidden, "You are not, or not yet, among those who are asked.")
	case errors.Is(err, approval.ErrDigest):
		return "digest", refuse(409, api.CodeConflict, "Your answer is to something else than what is asked. Look at the request again.")
	case errors.Is(err, approval.ErrStanding):
		if r.Standing == 0 {
			return "standing", refuse(400, api.CodeBadRequest, "standing: an answer to this request stands for this once.")
		}
		return "standing", refuse(400, api.CodeBadRequest, "standing: a yes may stand for at most %s, a no for none.", r.Standing)
	}
	return "", err
}

// watchApprovals sends server-sent events for as long as the person may see
// any: first all that is pending, then what changes.
func (d *Desk) watchApprovals(w http.ResponseWriter, r *http.Request, c *caller) error {
	select {
	case d.watchers <- struct{}{}:
		defer func() { <-d.watchers }()
	default:
		return refuse(503, api.CodeUnavailable, "Too many people watch at once. Try again later.")
	}
	out := http.NewResponseController(w)
	if err := out.SetReadDeadline(time.Time{}); err != nil { // nothing more is read
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no")
	ctx := r.Context()
	if !c.until.IsZero() {
		bounded, cancel := context.WithTimeout(ctx, c.until.Sub(d.now()))
		defer cancel()
		ctx = bounded
	}
	var ended <-chan struct{}
	if c.session != nil {
		ended = c.session.ended
	}
	send := func(name string, v any) error {
		text, err := json.Marshal(v)
		if err != nil {
			return err
		}
		if err := out.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "event: %s\ndata: %s\n\n", name, text); err != nil {
			return err
		}
		return out.Flush()
	}
	changes, stop := d.board.subscribe()
	defer stop()
	if err := send("ping", d.ping()); err != nil {
		return nil
	}
	for _, i := range d.board.all() {
		if c.visible(i) && i.state(d.now()) == approval.StatePending {
			if err := send("approval", c.view(i, d.now())); err != nil {
				return nil // whoever watched has gone
			}
		}
	}
	ping := time.NewTicker(api.PingEvery)
	defer ping.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-ended:
			return nil
		case <-ping.C:
			err = send("ping", d.ping())
		case i, ok := <-changes.queue:
			if !ok {
				return nil
			}
			if c.visible(i) {
				err = send("approval", c.view(i, d.now()))
			}
		}
		if err != nil {
			return nil
		}
	}
}

// ping says that the desk lives, and whether what it shows is up to date.
func (d *Desk) ping() any {
	return struct {
		Current bool      `json:"current"`
		Now     time.Time `json:"now"`
	}{d.board.upToDate(), d.now().UTC()}
}
