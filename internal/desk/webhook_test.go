package desk

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"chaperone.dev/chaperone/internal/approval"
	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/policy"
)

// delivery is a message as a receiver got it.
type delivery struct {
	path   string
	header http.Header
	body   []byte
}

// receiver takes messages, and refuses the first few.
type receiver struct {
	server *httptest.Server
	got    chan delivery

	mu      sync.Mutex
	refuse  []int // statuses of the next answers
	refused []delivery
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{got: make(chan delivery, 100)}
	r.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, err := io.ReadAll(io.LimitReader(q.Body, 1<<20))
		if err != nil {
			t.Error(err)
		}
		d := delivery{q.URL.Path, q.Header, body}
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.refuse) > 0 {
			status := r.refuse[0]
			r.refuse, r.refused = r.refuse[1:], append(r.refused, d)
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(status)
			return
		}
		r.got <- d
	}))
	t.Cleanup(r.server.Close)
	return r
}

func (r *receiver) next(t *testing.T) delivery {
	t.Helper()
	select {
	case d := <-r.got:
		return d
	case <-time.After(30 * time.Second):
		t.Fatal("no message comes")
		return delivery{}
	}
}

// checkSignature does what docs/approvals.md tells receivers to do.
func checkSignature(t *testing.T, d delivery, secret string) {
	t.Helper()
	stamp, sum, _ := strings.Cut(strings.TrimPrefix(d.header.Get("X-Chaperone-Signature"), "t="), ",v1=")
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(stamp + "."))
	mac.Write(d.body)
	if want := hex.EncodeToString(mac.Sum(nil)); stamp == "" || sum != want {
		t.Errorf("signature %q, want %s", d.header.Get("X-Chaperone-Signature"), want)
	}
}

func TestWebhook(t *testing.T) {
	r := newReceiver(t)
	w := newWorld(t, func(w *world, s *policy.SinkSpec) {
		secret := policy.SecretSource{File: w.file("secret", "whsec\n")}
		s.Webhooks = []policy.WebhookSpec{{Name: "siem", URLFrom: policy.SecretSource{File: w.file("url", r.server.URL+"/in?key=s3cret\n")}, SecretFrom: &secret}}
	})
	r.mu.Lock()
	r.refuse = []int{500, 503, 429}
	r.mu.Unlock()
	asked := w.put(request(func(r *approval.Request) {
		r.Escalate = []policy.EscalationSpec{{After: policy.Duration(time.Second), To: policy.PrincipalSelect{Groups: []string{"leads"}}}}
	}), approval.StatePending)

	d := r.next(t)
	checkSignature(t, d, "whsec")
	e, err := event.Decode(d.body)
	ok(t, err)
	if e.Kind() != event.TypeApprovalRequested || e.Source != "/c1/n1" || d.header.Get("Content-Type") != "application/cloudevents+json" || d.header.Get(headerDelivery) != e.ID {
		t.Errorf("message %+v with %v", e, d.header)
	}
	var data event.ApprovalRequested
	ok(t, json.Unmarshal(e.Data, &data))
	if data.Request != asked.ID || data.Text != asked.Text || data.Groups[0] != "dba" || data.Rule != "writes" {
		t.Errorf("it says %+v", data)
	}
	r.mu.Lock()
	if len(r.refused) != 3 {
		t.Errorf("%d attempts before it", len(r.refused))
	}
	for _, before := range r.refused {
		checkSignature(t, before, "whsec")
		if before.header.Get(headerDelivery) != e.ID {
			t.Errorf("an attempt has another id: %s", before.header.Get(headerDelivery))
		}
	}
	r.mu.Unlock()

	// Others may answer after a second.
	e, err = event.Decode(r.next(t).body)
	ok(t, err)
	ok(t, json.Unmarshal(e.Data, &data))
	if e.Kind() != event.TypeApprovalRequested || len(data.Groups) != 2 || data.Groups[1] != "leads" || e.ID == d.header.Get(headerDelivery) {
		t.Errorf("escalated: %s %+v", e.Type, data)
	}

	status, _ := w.call("POST", "/v1/approvals/"+asked.ID+"/votes", w.token("ada", "dba"), vote(asked, approval.Yes), nil)
	if status != 200 {
		t.Fatalf("the answer: %d", status)
	}
	eventually(t, "the desk has the vote", func() bool { return len(w.desk.board.all()[0].votes) == 1 })
	w.write(asked, approval.StateApproved)
	w.write(asked, approval.StateUsed) // the same decision
	e, err = event.Decode(r.next(t).body)
	ok(t, err)
	var decided event.ApprovalDecided
	ok(t, json.Unmarshal(e.Data, &decided))
	if e.Kind() != event.TypeApprovalDecided || decided.Outcome != "approved" || len(decided.Votes) != 1 || decided.Votes[0].By.Subject != "ada" {
		t.Errorf("decided: %s %+v", e.Type, decided)
	}

	// A request that its node leaves is over all the same.
	short := request(func(r *approval.Request) { r.Expires = time.Now().Add(time.Second) })
	w.write(short, approval.StatePending)
	for _, want := range []event.Type{event.TypeApprovalRequested, event.TypeApprovalExpired} {
		if e, err = event.Decode(r.next(t).body); err != nil || e.Kind() != want {
			t.Errorf("got %s, want %s, %v", e.Type, want, err)
		}
	}

	// No redirect is followed, and what the receiver refuses for good is on record.
	r.mu.Lock()
	r.refuse = []int{307, 400}
	r.mu.Unlock()
	for range 2 {
		w.write(request(), approval.StatePending)
	}
	eventually(t, "two failures on record", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		n := 0
		for _, a := range w.audits {
			if bad, ok := a.(event.NodeDegraded); ok {
				n++
				if bad.Component != "webhook siem" || strings.Contains(bad.Message, "s3cret") {
					t.Errorf("on record: %+v", bad)
				}
			}
		}
		return n == 2
	})
	if len(r.got) != 0 {
		t.Errorf("it was led elsewhere: %s", (<-r.got).path)
	}
}

func TestWebhookDropsTheOldest(t *testing.T) {
	h, err := newWebhook(policy.WebhookSpec{Name: "slow"}, zerolog.Nop())
	ok(t, err)
	for step := range maxMessages + 10 {
		h.queue(notice{kind: noticeAsked, step: step})
	}
	n, dropped, _ := h.next()
	if n.step != 10 || dropped != 10 || len(h.waiting) != maxMessages-1 {
		t.Errorf("first is %d, %d were dropped, %d wait", n.step, dropped, len(h.waiting))
	}
	if _, dropped, _ = h.next(); dropped != 0 {
		t.Errorf("%d are told twice", dropped)
	}
}

func TestWebhookKeepsToHTTPS(t *testing.T) {
	w := newWorld(t)
	for _, address := range []string{"http://hooks.example/x", "ftp://127.0.0.1/x", "https://", "nonsense"} {
		h, err := newWebhook(policy.WebhookSpec{Name: "bad", URLFrom: policy.SecretSource{File: w.file("bad-url", address)}}, zerolog.Nop())
		ok(t, err)
		if _, _, err := h.post(t.Context(), "id", nil, time.Now()); err == nil || !strings.Contains(err.Error(), "no https URL") || strings.Contains(err.Error(), "hooks.example/x") {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	for value, want := range map[string]time.Duration{
		"": 0, "3": 3 * time.Second, "-3": 0, "x": 0, "86400": longestAsked, "99999999999999999999": 0,
		now.Add(time.Minute).UTC().Format(http.TimeFormat): time.Minute, now.Add(-time.Minute).UTC().Format(http.TimeFormat): 0,
	} {
		if got := retryAfter(value, now); got != want {
			t.Errorf("%q: %s, want %s", value, got, want)
		}
	}
}
