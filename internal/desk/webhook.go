package desk

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/rs/zerolog"

	"chaperone.dev/chaperone/internal/approval"
	"chaperone.dev/chaperone/internal/outbound"
	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/policy"
)

// The headers of a message.
const (
	headerSignature = "X-Chaperone-Signature"
	headerDelivery  = "X-Chaperone-Delivery" // the event's id: the same for each attempt
)

const (
	maxMessages  = 256 // that wait for one receiver
	maxAttempts  = 10
	firstPause   = time.Second
	longestPause = time.Minute     // between attempts, unless the receiver says otherwise
	longestAsked = 5 * time.Minute // that a receiver may ask for
)

// webhook sends messages to one receiver, one after another.
type webhook struct {
	spec   policy.WebhookSpec
	client *http.Client
	log    zerolog.Logger
	pause  time.Duration // before the second attempt

	mu      sync.Mutex
	waiting []notice // at most maxMessages
	dropped uint64
	wake    chan struct{}
}

func newWebhook(spec policy.WebhookSpec, log zerolog.Logger) (*webhook, error) {
	client, err := httpClient(spec.CAFile)
	if err != nil {
		return nil, err
	}
	if spec.Format != "" && spec.Format != policy.WebhookJSON && spec.Format != policy.WebhookSlack {
		return nil, fmt.Errorf("format %q: want %q or %q", spec.Format, policy.WebhookJSON, policy.WebhookSlack)
	}
	return &webhook{spec: spec, client: client, log: log.With().Str("webhook", spec.Name).Logger(), pause: firstPause, wake: make(chan struct{}, 1)}, nil
}

// queue has a message sent. It never blocks: the oldest one makes room.
func (h *webhook) queue(n notice) {
	h.mu.Lock()
	if len(h.waiting) >= maxMessages {
		h.waiting = append(h.waiting[:0], h.waiting[1:]...)
		h.dropped++
	}
	h.waiting = append(h.waiting, n)
	h.mu.Unlock()
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// next takes the oldest message, and how many were dropped since the last one.
func (h *webhook) next() (n notice, dropped uint64, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.waiting) == 0 {
		return notice{}, 0, false
	}
	n, dropped = h.waiting[0], h.dropped
	h.waiting, h.dropped = append(h.waiting[:0], h.waiting[1:]...), 0
	return n, dropped, true
}

// run sends messages until ctx is done.
func (h *webhook) run(ctx context.Context, d *Desk) error {
	defer h.client.CloseIdleConnections()
	for {
		n, dropped, ok := h.next()
		if !ok {
			select {
			case <-ctx.Done():
				return nil
			case <-h.wake:
				continue
			}
		}
		if dropped > 0 {
			h.failed(d, n, fmt.Errorf("%d messages were dropped, as the receiver was too slow", dropped))
		}
		err := h.deliver(ctx, d, n)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			h.failed(d, n, err)
		}
	}
}

func (h *webhook) failed(d *Desk, n notice, err error) {
	h.log.Error().Str("request", n.item.record.Request.ID).Str("error", brief(err)).Msg("a message was not delivered")
	d.audit(originOf(n.item), event.NodeDegraded{Component: "webhook " + h.spec.Name, Message: "a message about request " + n.item.record.Request.ID + " was not delivered: " + brief(err)})
}

// deliver sends one message, as often as it takes and makes sense.
func (h *webhook) deliver(ctx context.Context, d *Desk, n notice) error {
	id, body, err := h.message(d, n)
	if err != nil {
		return err
	}
	pause := h.pause
	for attempt := 1; ; attempt++ {
		again, asked, err := h.post(ctx, id, body, d.now())
		if err == nil || !again {
			return err
		}
		if attempt == maxAttempts {
			return fmt.Errorf("after %d attempts: %w", attempt, err)
		}
		// Nobody is to be asked what can't be answered any more.
		if n.kind != noticeOver && !d.now().Before(n.item.record.Request.Expires) {
			return fmt.Errorf("the request expired before the receiver took it: %w", err)
		}
		wait := max(pause, asked)
		pause = min(2*pause, longestPause)
		h.log.Debug().Int("attempt", attempt).Str("error", brief(err)).Dur("wait", wait).Msg("a message is sent again")
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}

// post sends once. again tells whether another attempt makes sense, asked how
// long the receiver wants it to wait. Address and secret are read anew each
// time, so that they can be changed.
func (h *webhook) post(ctx context.Context, id string, body []byte, now time.Time) (again bool, asked time.Duration, err error) {
	address, err := readSecret(h.spec.URLFrom.File)
	if err != nil {
		return true, 0, fmt.Errorf("its address: %w", err)
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "https" && (u.Scheme != "http" || !outbound.Loopback(u.Hostname())) {
		return true, 0, fmt.Errorf("its address, in %s, is no https URL", h.spec.URLFrom.File)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return true, 0, fmt.Errorf("its address, in %s, is no https URL", h.spec.URLFrom.File)
	}
	r.Header.Set("User-Agent", "chaperone-sink")
	r.Header.Set(headerDelivery, id)
	r.Header.Set("Content-Type", "application/cloudevents+json")
	if h.spec.Format == policy.WebhookSlack {
		r.Header.Set("Content-Type", "application/json")
	}
	if h.spec.SecretFrom != nil {
		secret, err := readSecret(h.spec.SecretFrom.File)
		if err != nil {
			return true, 0, fmt.Errorf("its secret: %w", err)
		}
		r.Header.Set(headerSignature, sign(secret, now, body))
	}
	response, err := h.client.Do(r)
	if err != nil {
		return true, 0, err
	}
	defer response.Body.Close()
	const most = 4 << 10
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, most)) // so that the connection can be used again
	code := response.StatusCode
	switch {
	case code >= 200 && code < 300:
		return false, 0, nil
	case code == http.StatusRequestTimeout, code == http.StatusTooEarly, code == http.StatusTooManyRequests, code >= 500:
		return true, retryAfter(response.Header.Get("Retry-After"), now), fmt.Errorf("the receiver answered %s", response.Status)
	}
	return false, 0, fmt.Errorf("the receiver answered %s", response.Status)
}

// sign is the header [headerSignature]: the time, and the HMAC-SHA256 of time
// and body.
func sign(secret string, at time.Time, body []byte) string {
	stamp := strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(stamp + "."))
	mac.Write(body)
	return "t=" + stamp + ",v1=" + hex.EncodeToString(mac.Sum(nil))
}

// retryAfter reads the header (RFC 9110, section 10.2.3).
func retryAfter(value string, now time.Time) time.Duration {
	var wait time.Duration
	if seconds, err := strconv.Atoi(value); err == nil && seconds > 0 {
		wait = time.Duration(min(seconds, int(longestAsked/time.Second))) * time.Second
	} else if at, err := http.ParseTime(value); err == nil {
		wait = at.Sub(now)
	}
	return min(max(wait, 0), longestAsked)
}

// message makes a message's body.
func (h *webhook) message(d *Desk, n notice) (id string, body []byte, err error) {
	r := n.item.record.Request
	// The same fact has the same id, also from a sink that was started anew.
	name := fmt.Sprintf("%s/%s/%s/%s/%d", r.Cluster, r.Node, r.ID, n.kind, n.step)
	id = uuid.NewSHA1(uuid.NameSpaceURL, []byte("https://chaperone.dev/webhook/"+name)).String()
	if h.spec.Format == policy.WebhookSlack {
		body, err = json.Marshal(d.slackNotice(n))
		return id, body, err
	}
	data, err := eventOf(n)
	if err != nil {
		return "", nil, err
	}
	e, err := event.NewWithID(id, originOf(n.item), d.now(), data)
	if err != nil {
		return "", nil, err
	}
	body, err = json.Marshal(e)
	return id, body, err
}

// eventOf is what happened, as an event of the catalogue.
func eventOf(n notice) (event.Data, error) {
	r := n.item.record.Request
	switch n.kind {
	case noticeAsked, noticeEscalated:
		from := asked(r, n.step)
		return event.ApprovalRequested{
			Request: r.ID, About: r.About, Session: r.Session, Principal: r.Principal, Workload: r.Workload, Target: r.Target.Name,
			Text: r.Text, Parameters: r.Parameters, Parsed: r.Parsed, Digest: r.Digest, Policy: r.Policy, Rule: r.Rule, Why: r.Why,
			Groups: from.Groups, Subjects: from.Subjects, Count: max(r.Count, 1), Mode: r.Mode, Expires: r.Expires,
		}, nil
	case noticeOver:
	default:
		return nil, errors.New("nobody is told of " + n.kind)
	}
	switch state := n.item.record.State; state {
	case approval.StateApproved, approval.StateUsed, approval.StateDenied:
		outcome := "approved"
		if state == approval.StateDenied {
			outcome = "denied"
		}
		decided := event.ApprovalDecided{Request: r.ID, Session: r.Session, Outcome: outcome, Digest: r.Digest, Votes: []event.ApprovalVote{}}
		for _, v := range n.item.votes {
			decided.Votes = append(decided.Votes, event.ApprovalVote{
				By:  event.Principal{Subject: v.By.Subject, Issuer: v.By.Issuer, Groups: v.By.Groups},
				Via: v.Via, Verdict: string(v.Verdict), Reason: v.Reason, Standing: v.Standing, At: v.At, Until: v.Until,
			})
		}
		return decided, nil
	default:
		return event.ApprovalExpired{Request: r.ID, Session: r.Session, Outcome: string(state), Message: n.item.record.Message}, nil
	}
}

// asked are all who may answer once so many escalations are due.
func asked(r approval.Request, steps int) policy.PrincipalSelect {
	all := policy.PrincipalSelect{Groups: append([]string(nil), r.From.Groups...), Subjects: append([]string(nil), r.From.Subjects...)}
	for _, e := range r.Escalate[:min(steps, len(r.Escalate))] {
		all.Groups = append(all.Groups, e.To.Groups...)
		all.Subjects = append(all.Subjects, e.To.Subjects...)
	}
	return all
}
