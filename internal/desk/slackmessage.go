package desk

import (
	"fmt"
	"strings"
	"time"

	"chaperone.dev/chaperone/internal/approval"
)

// Slack's limits (https://docs.slack.dev/reference/block-kit/blocks).
const (
	slackHeader  = 150  // characters of a header
	slackSection = 3000 // characters of a section's text
	slackField   = 2000 // characters of a field
)

// The actions of buttons.
const (
	actionApprove = "approve"
	actionDeny    = "deny"
	actionReview  = "review"
)

type slackText struct {
	Type     string `json:"type"` // "mrkdwn" or "plain_text"
	Text     string `json:"text"`
	Verbatim bool   `json:"verbatim,omitempty"` // no links are made of what looks like one
}

type slackConfirm struct {
	Title   slackText `json:"title"`
	Text    slackText `json:"text"`
	Confirm slackText `json:"confirm"`
	Deny    slackText `json:"deny"`
}

type slackElement struct {
	Type     string        `json:"type"`
	Text     any           `json:"text,omitempty"`
	ActionID string        `json:"action_id,omitempty"`
	Value    string        `json:"value,omitempty"`
	URL      string        `json:"url,omitempty"`
	Style    string        `json:"style,omitempty"`
	Confirm  *slackConfirm `json:"confirm,omitempty"`
	Verbatim bool          `json:"verbatim,omitempty"`
}

type slackBlock struct {
	Type     string         `json:"type"`
	Text     *slackText     `json:"text,omitempty"`
	Fields   []slackText    `json:"fields,omitempty"`
	Elements []slackElement `json:"elements,omitempty"`
}

// slackMessage is a message, or a change of one through its response_url.
type slackMessage struct {
	Text            string       `json:"text"` // for notifications
	Blocks          []slackBlock `json:"blocks,omitempty"`
	ReplaceOriginal bool         `json:"replace_original,omitempty"`
	ResponseType    string       `json:"response_type,omitempty"`
	UnfurlLinks     bool         `json:"unfurl_links"`
	UnfurlMedia     bool         `json:"unfurl_media"`
}

func plain(text string, most int) slackText {
	text, cut := cutText(visible(text, false), most-len("…"))
	if cut {
		text += "…"
	}
	return slackText{Type: "plain_text", Text: text}
}

func mrkdwn(text string) slackText { return slackText{Type: "mrkdwn", Text: text, Verbatim: true} }

var slackEscapes = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

// slackEscape makes text of a stranger harmless in Slack's markup: it mentions
// nobody, links nowhere and ends no code.
func slackEscape(text string, lines bool) string {
	return slackEscapes.Replace(strings.ReplaceAll(visible(text, lines), "`", "ˋ"))
}

// slackCut is [slackEscape] of as much of the text as fits.
func slackCut(text string, lines bool, most int) (string, bool) {
	if escaped := slackEscape(text, lines); len(escaped) <= most {
		return escaped, false
	}
	var b strings.Builder
	for _, r := range text {
		one := slackEscape(string(r), lines)
		if b.Len()+len(one) > most-len("…") {
			break
		}
		b.WriteString(one)
	}
	return b.String() + "…", true
}

// slackNotice is the message of a notice.
func (d *Desk) slackNotice(n notice) slackMessage {
	switch n.kind {
	case noticeAsked:
		return d.slackMessage(n.item, "Approval needed", true, "")
	case noticeEscalated:
		return d.slackMessage(n.item, "Approval still needed", true, "")
	}
	return d.slackMessage(n.item, "", false, "")
}

// slackMessage shows a request. open asks for an answer; note is a last line
// of ours.
func (d *Desk) slackMessage(i *item, title string, open bool, note string) slackMessage {
	r := i.record.Request
	if title == "" {
		title = outcomeTitle(i.state(d.now()))
	}
	head := plain(title+": "+r.Principal.Subject+" → "+r.Target.Name, slackHeader)
	fields := []slackText{
		field("Acts for", r.Principal.Subject+"@"+r.Principal.Issuer),
		field("Job", r.Workload.Name+" ("+r.Workload.Job+")"),
		field("Target", targetLine(r)),
		field("Node", r.Node+", process "+fmt.Sprintf("%s[%d]", r.Process.Comm, r.Process.PID)),
	}
	if touches := touchesLine(r); touches != "" {
		fields = append(fields, field("Touches", touches))
	}
	if open {
		fields = append(fields, field("Answers needed", fmt.Sprintf("%d, until %s UTC", max(r.Count, 1), r.Expires.UTC().Format("15:04:05"))))
	}
	blocks := []slackBlock{{Type: "header", Text: &head}, {Type: "section", Fields: fields}}
	text, whole := r.Text, !r.Cut
	if r.About == approval.AboutSession && text == "" {
		text = "opening a session"
	}
	blocks, whole = appendCode(blocks, "", text, whole)
	if len(r.Parameters) > 0 {
		var lines strings.Builder
		for at, p := range r.Parameters {
			fmt.Fprintf(&lines, "$%d = %s\n", at+1, visible(p, false))
		}
		blocks, whole = appendCode(blocks, "Parameters", lines.String(), whole)
	}
	why, _ := slackCut("Asked by policy "+r.Policy+", rule "+r.Rule+": "+r.Why, false, slackField)
	when, _ := slackCut("when "+r.When, false, slackField)
	context := []slackElement{{Type: "mrkdwn", Text: why, Verbatim: true}}
	if r.When != "" {
		context = append(context, slackElement{Type: "mrkdwn", Text: when, Verbatim: true})
	}
	for _, v := range i.votes {
		line, _ := slackCut(voteLine(v), false, slackField)
		if len(context) < 8 { // Slack takes ten
			context = append(context, slackElement{Type: "mrkdwn", Text: line, Verbatim: true})
		}
	}
	if !whole {
		note = strings.TrimSpace("This is not all of it: look at the whole before you approve. " + note)
	}
	if note != "" {
		context = append(context, slackElement{Type: "mrkdwn", Text: slackEscape(note, false), Verbatim: true})
	}
	blocks = append(blocks, slackBlock{Type: "context", Elements: context})
	blocks = append(blocks, slackBlock{Type: "actions", Elements: d.buttons(i, open, whole)})
	return slackMessage{Text: slackEscape(head.Text, false), Blocks: blocks}
}

// buttons are Approve, Deny and Review. Where not all of a command is shown,
// nobody approves it from here.
func (d *Desk) buttons(i *item, open, whole bool) []slackElement {
	r := i.record.Request
	button := func(action, label, style string) slackElement {
		e := slackElement{Type: "button", Text: plain(label, 75), ActionID: action, Style: style}
		if action == actionReview {
			e.URL = d.reviewURL(r.ID)
		} else {
			e.Value = r.ID + ":" + r.Digest[:min(len(r.Digest), digestPrefix)]
		}
		return e
	}
	var all []slackElement
	if open && d.slack != nil {
		if whole {
			approve := button(actionApprove, "Approve", "primary")
			approve.Confirm = &slackConfirm{
				Title: plain("Approve this?", 100), Text: plain("It then runs at "+r.Target.Name+" for "+r.Principal.Subject+".", 300),
				Confirm: plain("Approve", 30), Deny: plain("Back", 30),
			}
			all = append(all, approve)
		}
		all = append(all, button(actionDeny, "Deny", "danger"))
	}
	return append(all, button(actionReview, "Review", ""))
}

// digestPrefix is how much of a digest a button carries, in hex digits.
const digestPrefix = 32

func field(label, value string) slackText {
	text, _ := slackCut(value, false, slackField-len(label)-len("**\n"))
	return mrkdwn("*" + label + "*\n" + text)
}

// appendCode adds a section with a block of code, and tells whether all of the
// text is in it, and was before.
func appendCode(blocks []slackBlock, label, text string, whole bool) ([]slackBlock, bool) {
	const fence = "```"
	if label != "" {
		label = "*" + label + "*\n"
	}
	code, cut := slackCut(strings.TrimRight(text, "\n"), true, slackSection-2*len(fence)-len(label))
	section := mrkdwn(label + fence + code + fence)
	return append(blocks, slackBlock{Type: "section", Text: &section}), whole && !cut
}

func outcomeTitle(s approval.State) string {
	switch s {
	case approval.StateApproved, approval.StateUsed:
		return "Approved"
	case approval.StateDenied:
		return "Denied"
	case approval.StateCancelled:
		return "Cancelled"
	case approval.StateExpired:
		return "Expired"
	}
	return "Approval needed"
}

func targetLine(r approval.Request) string {
	line := r.Target.Name
	if r.Target.Database != "" {
		line += ", database " + r.Target.Database
	}
	return line + " (" + r.Target.Protocol + ", " + r.Target.Host + ")"
}

// touchesLine says in a line what the command does to what.
func touchesLine(r approval.Request) string {
	var parts []string
	if len(r.Parsed.Kinds) > 0 {
		parts = append(parts, strings.Join(r.Parsed.Kinds, ", "))
	}
	if len(r.Parsed.Tables) > 0 {
		parts = append(parts, "tables "+strings.Join(r.Parsed.Tables, ", "))
	}
	if len(r.Parsed.Functions) > 0 {
		parts = append(parts, "functions "+strings.Join(r.Parsed.Functions, ", "))
	}
	if len(parts) > 0 && r.Parsed.ReadOnly {
		parts = append(parts, "read only")
	}
	return strings.Join(parts, "; ")
}

func voteLine(v approval.Vote) string {
	line := v.By.String() + " said yes"
	if v.Verdict == approval.No {
		line = v.By.String() + " said no"
	}
	if v.Standing > 0 {
		line += ", also to more of the kind for " + v.Standing.Round(time.Second).String()
	}
	if v.Reason != "" {
		line += ": " + v.Reason
	}
	return line
}
