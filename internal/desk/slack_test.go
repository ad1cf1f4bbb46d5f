package desk

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"chaperone.dev/chaperone/internal/approval"
	"chaperone.dev/chaperone/pkg/policy"
)

// message is a Slack message as a receiver reads it.
type message struct {
	Text            string `json:"text"`
	ResponseType    string `json:"response_type"`
	ReplaceOriginal bool   `json:"replace_original"`
	Blocks          []struct {
		Type     string
		Text     struct{ Type, Text string }
		Fields   []struct{ Type, Text string }
		Elements []struct {
			Type     string
			Text     json.RawMessage
			ActionID string `json:"action_id"`
			Value    string
			URL      string
		}
	}
}

// buttons are the values of a message's buttons, by their action.
func (m message) buttons() map[string]string {
	all := map[string]string{}
	for _, b := range m.Blocks {
		for _, e := range b.Elements {
			if e.Type == "button" {
				all[e.ActionID] = e.Value + e.URL
			}
		}
	}
	return all
}

func readMessage(t *testing.T, d delivery) (m message) {
	t.Helper()
	ok(t, json.Unmarshal(d.body, &m))
	return m
}

const slackSecret = "8f742231b10e8888abcd99yyyzzz85a5"

func newSlackWorld(t *testing.T) (*world, *receiver) {
	r := newReceiver(t)
	return newWorld(t, func(w *world, s *policy.SinkSpec) {
		s.Webhooks = []policy.WebhookSpec{{Name: "slack", Format: policy.WebhookSlack, URLFrom: policy.SecretSource{File: w.file("url", r.server.URL+"/services/T0/B0/x")}}}
		s.Slack = &policy.SlackSpec{SigningSecretFrom: policy.SecretSource{File: w.file("slack", slackSecret+"\n")}, People: []policy.SlackPerson{
			{ID: "U0ADA", Subject: "ada", Issuer: "corp", Groups: []string{"dba"}}, {ID: "U0EVE", Subject: "eve", Issuer: "corp"}, {ID: "U0BOB", Subject: "bob", Issuer: "corp", Groups: []string{"dba"}},
		}}
	}), r
}

// press sends what Slack sends when somebody presses a button.
func (w *world) press(user, action, value, back string, change ...func(body *string, at *time.Time, secret *string)) (*http.Request, int) {
	w.t.Helper()
	payload, err := json.Marshal(map[string]any{
		"type": "block_actions", "user": map[string]string{"id": user, "username": "ada", "name": "Ada L."},
		"actions": []map[string]string{{"action_id": action, "value": value, "type": "button"}}, "response_url": back, "trigger_id": newID(),
	})
	ok(w.t, err)
	body, at, secret := url.Values{"payload": {string(payload)}}.Encode(), time.Now(), slackSecret
	for _, f := range change {
		f(&body, &at, &secret)
	}
	stamp := strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte("v0:" + stamp + ":" + body))
	r, err := http.NewRequestWithContext(w.t.Context(), "POST", w.url+"/hooks/slack", strings.NewReader(body))
	ok(w.t, err)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("X-Slack-Request-Timestamp", stamp)
	r.Header.Set("X-Slack-Signature", "v0="+hex.EncodeToString(mac.Sum(nil)))
	return r, w.send(r)
}

func (w *world) send(r *http.Request) int {
	w.t.Helper()
	if r.GetBody != nil {
		body, err := r.GetBody()
		ok(w.t, err)
		r.Body = body
	}
	response, err := w.http.Do(r)
	ok(w.t, err)
	ok(w.t, response.Body.Close())
	return response.StatusCode
}

func TestSlack(t *testing.T) {
	w, r := newSlackWorld(t)
	back := r.server.URL + "/actions/1"
	asked := w.put(request(func(r *approval.Request) {
		r.Text = "DELETE FROM orders -- ``` <!channel> <https://evil.example|here> &amp; \u202e"
		r.Count = 2
	}), approval.StatePending)
	m := readMessage(t, r.next(t))
	buttons := m.buttons()
	if !strings.HasPrefix(buttons[actionApprove], asked.ID+":"+asked.Digest[:16]) || buttons[actionDeny] != buttons[actionApprove] || buttons[actionReview] != w.url+"/approvals/"+asked.ID {
		t.Errorf("buttons %v", buttons)
	}
	code := m.Blocks[2].Text.Text
	if want := "```DELETE FROM orders -- ˋˋˋ &lt;!channel&gt; &lt;https://evil.example|here&gt; &amp;amp; \\u202e```"; code != want {
		t.Errorf("the command is %q, want %q", code, want)
	}
	value := buttons[actionApprove]

	// Nothing that Slack did not sign now, for the first time, has an effect.
	for name, change := range map[string]func(*string, *time.Time, *string){
		"wrong secret": func(_ *string, _ *time.Time, secret *string) { *secret = "x" },
		"stale":        func(_ *string, at *time.Time, _ *string) { *at = at.Add(-6 * time.Minute) },
		"early":        func(_ *string, at *time.Time, _ *string) { *at = at.Add(6 * time.Minute) },
	} {
		if _, status := w.press("U0ADA", actionApprove, value, back, change); status != 401 {
			t.Errorf("%s: %d", name, status)
		}
	}
	unsigned, status := w.press("U0ADA", actionReview, "", back)
	if status != 200 {
		t.Errorf("the review button: %d", status)
	}
	unsigned.Header.Del("X-Slack-Signature")
	if status := w.send(unsigned); status != 401 {
		t.Errorf("no signature: %d", status)
	}
	for _, elsewhere := range []string{"https://evil.example/x", "http://169.254.169.254/x", strings.Replace(back, "http://", "http://a:b@", 1), ""} {
		if _, status := w.press("U0ADA", actionApprove, value, elsewhere); status != 400 {
			t.Errorf("a response_url at %q: %d", elsewhere, status)
		}
	}
	if _, status := w.press("", "", "", "", func(body *string, _ *time.Time, _ *string) { *body = "payload=nonsense" }); status != 400 {
		t.Errorf("nonsense: %d", status)
	}

	tell := func(name, user, action, value, says string) {
		t.Helper()
		if _, status := w.press(user, action, value, back); status != 200 {
			t.Errorf("%s: %d", name, status)
		}
		if m := readMessage(t, r.next(t)); m.ResponseType != "ephemeral" || m.ReplaceOriginal || !strings.Contains(m.Text, says) {
			t.Errorf("%s: told %+v", name, m)
		}
	}
	tell("unknown user", "U0WHO<!here>", actionApprove, value, "does not know you")
	tell("not asked", "U0EVE", actionApprove, value, "not for you")
	tell("another digest", "U0ADA", actionApprove, asked.ID+":"+strings.Repeat("cd", 16), "something else")
	tell("short digest", "U0ADA", actionApprove, asked.ID+":ab", "something else")
	tell("no request", "U0ADA", actionApprove, newID()+":"+asked.Digest[:32], "no such request")
	tell("another action", "U0ADA", "launch", value, "no such request")

	pressed, status := w.press("U0ADA", actionApprove, value, back)
	if status != 200 {
		t.Fatalf("the first yes: %d", status)
	}
	if m = readMessage(t, r.next(t)); !m.ReplaceOriginal || m.buttons()[actionApprove] == "" || !strings.Contains(fmt.Sprintf("%s", m.Blocks), "ada@corp said yes") {
		t.Errorf("after the first yes: %+v", m)
	}
	if status := w.send(pressed); status != 401 {
		t.Errorf("replayed: %d", status)
	}
	tell("twice", "U0ADA", actionDeny, value, "answered already")
	if _, status := w.press("U0BOB", actionApprove, value, back); status != 200 {
		t.Errorf("the second yes: %d", status)
	}
	m = readMessage(t, r.next(t))
	if !m.ReplaceOriginal || !strings.HasPrefix(m.Text, "Approved") || m.buttons()[actionApprove] != "" || m.buttons()[actionDeny] != "" || m.buttons()[actionReview] == "" {
		t.Errorf("after the second yes: %+v", m)
	}
	item := w.desk.board.all()[0]
	eventually(t, "both votes are known", func() bool { item = w.desk.board.all()[0]; return len(item.votes) == 2 })
	if v := item.votes[0]; v.By.String() != "ada@corp" || v.Via != approval.ViaChat || v.By.Name != "" || v.Digest != asked.Digest {
		t.Errorf("the vote is %+v", v)
	}
}

// Nobody approves in Slack what Slack does not show.
func TestSlackShowsAllOrHasNoApprove(t *testing.T) {
	w, r := newSlackWorld(t)
	for name, change := range map[string]func(*approval.Request){
		"long":            func(r *approval.Request) { r.Text = strings.Repeat("<ä>", 2000) },
		"cut by the node": func(r *approval.Request) { r.Cut = true },
		"long parameter":  func(r *approval.Request) { r.Parameters = []string{strings.Repeat("`", 3000)} },
	} {
		w.put(request(change), approval.StatePending)
		m := readMessage(t, r.next(t))
		buttons := m.buttons()
		if buttons[actionApprove] != "" || buttons[actionDeny] == "" || buttons[actionReview] == "" {
			t.Errorf("%s: buttons %v", name, buttons)
		}
		for _, b := range m.Blocks {
			if n := utf8.RuneCountInString(b.Text.Text); n > slackSection || !utf8.ValidString(b.Text.Text) {
				t.Errorf("%s: a text of %d characters", name, n)
			}
		}
	}
}

func FuzzSlackPayload(f *testing.F) {
	f.Add([]byte("payload=%7B%22type%22%3A%22block_actions%22%7D"))
	f.Add([]byte("payload={}"))
	f.Add([]byte("%zz"))
	f.Fuzz(func(t *testing.T, body []byte) {
		if p, err := readPayload(body); err == nil && len(p.Actions) > len(body) {
			t.Errorf("%d actions in %d bytes", len(p.Actions), len(body))
		}
	})
}

func FuzzSlackText(f *testing.F) {
	f.Add("```<!channel>\u202e\x00", 100)
	f.Add("&&&&&", 7)
	f.Fuzz(func(t *testing.T, text string, most int) {
		most = max(10, min(most, slackSection))
		got, cut := slackCut(text, true, most)
		if len(got) > most || strings.ContainsAny(got, "<>`\x00\u202e") || !utf8.ValidString(got) || !cut && text != "" && got == "" {
			t.Errorf("%q became %q", text, got)
		}
	})
}
