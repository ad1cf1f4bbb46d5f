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
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"chaperone.dev/chaperone/internal/approval"
	"chaperone.dev/chaperone/internal/desk/api"
	"chaperone.dev/chaperone/internal/outbound"
	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/policy"
)

const (
	slackBody    = 1 << 20         // bytes of a payload: it holds the whole message
	slackAge     = 5 * time.Minute // of a signature, to both sides
	slackPatient = 2500 * time.Millisecond
	maxReplays   = 10_000 // signatures that are remembered
	maxUpdates   = 256    // of messages that wait to be sent
)

// slack takes answers from buttons in messages. A payload proves by its
// signature that Slack sent it, and by the user's id who pressed; nothing else in it is
// believed.
type slack struct {
	desk   *Desk
	secret policy.SecretSource
	people map[string]approval.Person
	hosts  []string
	client *http.Client

	mu   sync.Mutex
	seen map[[sha256.Size]byte]time.Time // signatures, and until when they would be taken

	updates chan slackUpdate
}

// slackUpdate is a message for a response_url.
type slackUpdate struct {
	to      *url.URL
	message slackMessage
}

func newSlack(spec policy.SlackSpec, hosts []string, d *Desk) (*slack, error) {
	client, err := httpClient("")
	if err != nil {
		return nil, err
	}
	s := &slack{
		desk: d, secret: spec.SigningSecretFrom, people: map[string]approval.Person{}, hosts: hosts, client: client,
		seen: map[[sha256.Size]byte]time.Time{}, updates: make(chan slackUpdate, maxUpdates),
	}
	for _, p := range spec.People {
		if p.ID == "" || p.Subject == "" || p.Issuer == "" {
			return nil, fmt.Errorf("people: %q has no id, subject or issuer", p.ID)
		}
		if _, twice := s.people[p.ID]; twice {
			return nil, fmt.Errorf("people: %s is there twice", p.ID)
		}
		s.people[p.ID] = approval.Person{Subject: p.Subject, Issuer: p.Issuer, Groups: p.Groups, IssuerURL: d.issuers[p.Issuer]}
	}
	return s, nil
}

// run sends changes of messages until ctx is done.
func (s *slack) run(ctx context.Context) error {
	defer s.client.CloseIdleConnections()
	for {
		select {
		case <-ctx.Done():
			return nil
		case u := <-s.updates:
			if err := s.send(ctx, u); err != nil && ctx.Err() == nil {
				s.desk.log.Warn().Str("error", brief(err)).Msg("a message at Slack was not changed")
			}
		}
	}
}

// answer takes one payload. Slack waits for three seconds.
func (s *slack) answer(w http.ResponseWriter, r *http.Request) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, slackBody))
	if err != nil {
		return err
	}
	if err := s.verify(r.Header.Get("X-Slack-Request-Timestamp"), r.Header.Get("X-Slack-Signature"), body); err != nil {
		s.desk.log.Warn().Err(err).Msg("a payload that is said to be Slack's was refused")
		return err
	}
	p, err := readPayload(body)
	if err != nil {
		return refuse(400, api.CodeBadRequest, "The payload can't be read: %v.", err)
	}
	if p.Type != "block_actions" || len(p.Actions) != 1 || p.Actions[0].ID == actionReview {
		return nil // nothing that asks for anything, such as the Review button
	}
	ctx, cancel := context.WithTimeout(r.Context(), slackPatient)
	defer cancel()
	return s.act(ctx, p)
}

// verify checks Slack's signature (https://docs.slack.dev/authentication/verifying-requests-from-slack),
// and that it comes for the first time.
func (s *slack) verify(stamp, signature string, body []byte) error {
	refused := func(why string) error {
		return refuse(401, api.CodeUnauthenticated, "The request is not Slack's: %s.", why)
	}
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil {
		return refused("it has no timestamp")
	}
	now := s.desk.now()
	at := time.Unix(seconds, 0)
	if at.Before(now.Add(-slackAge)) || at.After(now.Add(slackAge)) {
		return refused("its timestamp is more than five minutes off")
	}
	secret, err := readSecret(s.secret.File)
	if err != nil {
		return fmt.Errorf("the signing secret of Slack: %w", err)
	}
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte("v0:" + stamp + ":"))
	mac.Write(body)
	sum := mac.Sum(nil)
	if !hmac.Equal([]byte(signature), []byte("v0="+hex.EncodeToString(sum))) {
		return refused("its signature is wrong")
	}
	return s.first(sum, at.Add(slackAge), now)
}

// first refuses a signature that came before.
func (s *slack) first(sum []byte, until, now time.Time) error {
	key := [sha256.Size]byte(sum)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, again := s.seen[key]; again {
		return refuse(401, api.CodeUnauthenticated, "The request came before.")
	}
	if len(s.seen) >= maxReplays {
		for k, t := range s.seen {
			if now.After(t) {
				delete(s.seen, k)
			}
		}
	}
	if len(s.seen) >= maxReplays {
		return refuse(503, api.CodeUnavailable, "Too many answers came through Slack at once. Try again.")
	}
	s.seen[key] = until
	return nil
}

// slackPayload is what we take of a payload.
type slackPayload struct {
	Type string `json:"type"`
	User struct {
		ID string `json:"id"`
	} `json:"user"`
	Actions []struct {
		ID    string `json:"action_id"`
		Value string `json:"value"`
	} `json:"actions"`
	ResponseURL string `json:"response_url"`
}

func readPayload(body []byte) (slackPayload, error) {
	var p slackPayload
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return p, errors.New("it is no form")
	}
	if err := json.Unmarshal([]byte(form.Get("payload")), &p); err != nil {
		return p, errors.New("its field \"payload\" is no JSON")
	}
	return p, nil
}

// act casts the vote that a button stands for, and has the message say what
// came of it.
func (s *slack) act(ctx context.Context, p slackPayload) error {
	back, err := s.backTo(p.ResponseURL)
	if err != nil {
		return err
	}
	who, known := s.people[p.User.ID]
	if !known {
		s.desk.log.Warn().Str("user", visible(p.User.ID, false)).Msg("somebody whom the Sink document does not name pressed a button at Slack")
		s.tell(back, "Chaperone does not know you, so your answer does not count. Ask an admin to add your Slack user id "+visible(p.User.ID, false)+" to the Sink document, or answer at "+s.desk.url.String()+".")
		return nil
	}
	c := &caller{person: who, via: approval.ViaChat}
	i, v, err := s.meant(c, p.Actions[0].ID, p.Actions[0].Value)
	if err == nil {
		var after *item
		if after, err = s.desk.vote(ctx, c, i, v); err == nil {
			s.show(back, after, "")
			return nil
		}
	}
	var told *api.Error
	if !errors.As(err, &told) {
		return err
	}
	s.tell(back, told.Message)
	if i != nil && (told.Status == http.StatusConflict || told.Status == http.StatusGone) && i.state(s.desk.now()) != approval.StatePending {
		s.show(back, i, "")
	}
	return nil
}

// meant is the request that a button is for, and the answer.
func (s *slack) meant(c *caller, action, value string) (*item, api.VoteRequest, error) {
	gone := refuse(404, api.CodeNotFound, "There is no such request for approval, or it is not for you to see.")
	id, prefix, _ := strings.Cut(value, ":")
	v := api.VoteRequest{Verdict: approval.No}
	if action == actionApprove {
		v.Verdict = approval.Yes
	}
	if !validID(id) || action != actionApprove && action != actionDeny {
		return nil, v, gone
	}
	i, err := s.desk.find(c, id)
	if err != nil {
		return nil, v, err
	}
	v.Digest = i.record.Request.Digest
	if len(prefix) < min(digestPrefix, len(v.Digest)) || !strings.HasPrefix(v.Digest, prefix) {
		s.desk.audit(originOf(i), event.ApprovalRejected{
			Request: id, By: &event.Principal{Subject: c.person.Subject, Issuer: c.person.Issuer}, Reason: "digest",
			Message: "a button at Slack was for something else than what is asked",
		})
		return nil, v, refuse(409, api.CodeConflict, "Your answer is to something else than what is asked. Look at the request again.")
	}
	return i, v, nil
}

// backTo checks where changes of the message go. It leads to Slack, whatever
// the payload says.
func (s *slack) backTo(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	if err != nil || u.User != nil || !slices.Contains(s.hosts, u.Host) || u.Scheme != "https" && (u.Scheme != "http" || !outbound.Loopback(u.Hostname())) {
		return nil, refuse(400, api.CodeBadRequest, "The payload's response_url does not lead to Slack.")
	}
	return u, nil
}

// tell says something to the one who pressed, and to nobody else.
func (s *slack) tell(to *url.URL, text string) {
	s.queue(slackUpdate{to, slackMessage{ResponseType: "ephemeral", Text: slackEscapes.Replace(text)}})
}

// show puts the request, as it is now, into the place of the message.
func (s *slack) show(to *url.URL, i *item, note string) {
	m := s.desk.slackMessage(i, "", i.state(s.desk.now()) == approval.StatePending, note)
	m.ReplaceOriginal = true
	s.queue(slackUpdate{to, m})
}

func (s *slack) queue(u slackUpdate) {
	select {
	case s.updates <- u:
	default:
		s.desk.log.Warn().Msg("a message at Slack is not changed, as too many wait")
	}
}

func (s *slack) send(ctx context.Context, u slackUpdate) error {
	body, err := json.Marshal(u.message)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, u.to.String(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	response, err := s.client.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("it answered %s", response.Status)
	}
	return nil
}
