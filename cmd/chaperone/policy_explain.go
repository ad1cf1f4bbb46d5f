package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"chaperone.dev/chaperone/pkg/policy"
)

// explainFlags are what a decision is asked for by.
type explainFlags struct {
	as, target         string
	groups, workload   []string
	statement, command string
	interactive        bool
	subsystem, forward string
	file, request, at  string
}

func policyExplainCommand() *cobra.Command {
	var f explainFlags
	cmd := &cobra.Command{
		Use:   "explain DIR --as SUBJECT@ISSUER --target NAME [--statement SQL | --command LINE | --file OP:PATH | --request VERB:RESOURCE]",
		Short: "Say which rule decides, and why the others do not",
		Long: `Say what the documents of a folder decide, which rule decides it, who would be
asked, and why the other rules do not decide. Without a statement, command, file
or request it is whether a session may be opened.

Masks have no part in it: a statement that is allowed may still be refused since
its results can't be traced.`,
		Args: cobra.ExactArgs(1),
	}
	flags := cmd.Flags()
	flags.StringVar(&f.as, "as", "", "principal, as subject@issuer (required)")
	flags.StringSliceVar(&f.groups, "groups", nil, "groups of the principal")
	flags.StringVar(&f.target, "target", "", "name of the Target document (required)")
	flags.StringArrayVar(&f.workload, "workload", nil, `a fact of the job: "name=nightly-7", "unit=…", "labels.app=…", … (repeatable)`)
	flags.StringVar(&f.at, "at", "", "the time of the decision, RFC 3339 (default now)")
	flags.StringVar(&f.statement, "statement", "", "SQL, one statement or several")
	flags.StringVar(&f.command, "command", "", `a command line over SSH; "" is a shell`)
	flags.BoolVar(&f.interactive, "interactive", false, "with a terminal (with --command)")
	flags.StringVar(&f.subsystem, "subsystem", "", `an SSH subsystem, such as "sftp"`)
	flags.StringVar(&f.forward, "forward", "", `an SSH forwarding: "local", "remote", "dynamic", "agent" or "x11"`)
	flags.StringVar(&f.file, "file", "", `a file operation, such as "write:/srv/app/app.tar"`)
	flags.StringVar(&f.request, "request", "", `a Kubernetes request, such as "delete:pods:shop/web-1", "create:pods/exec:shop/web-1", "get:deployments.apps:shop" or "get:/healthz"`)
	cmd.MarkFlagsMutuallyExclusive("statement", "command", "file", "request")
	output := outputFlag(cmd)
	for _, name := range []string{"as", "target"} {
		_ = cmd.MarkFlagRequired(name)
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		asJSON, err := output()
		if err != nil {
			return err
		}
		set, err := policy.Load(args[0])
		if err != nil {
			return err
		}
		explained, err := f.explain(set, cmd.Flags().Changed("command"))
		if err != nil {
			return err
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), explained)
		}
		for _, e := range explained {
			if err := e.print(cmd.OutOrStdout()); err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}

// explain decides all that is asked.
func (f *explainFlags) explain(set *policy.Set, commandGiven bool) ([]explanation, error) {
	principal, err := readPrincipal(f.as, f.groups)
	if err != nil {
		return nil, err
	}
	target, err := targetFacts(set, f.target)
	if err != nil {
		return nil, err
	}
	workload, err := readWorkload(f.workload)
	if err != nil {
		return nil, err
	}
	at := time.Now()
	if f.at != "" {
		if at, err = time.Parse(time.RFC3339, f.at); err != nil {
			return nil, fmt.Errorf(`--at %q: want a time like "2026-07-06T12:00:00Z"`, f.at)
		}
	}
	asked, protocol, err := f.asked(commandGiven)
	if err != nil {
		return nil, err
	}
	if protocol != "" && protocol != target.Protocol {
		return nil, fmt.Errorf("target %q speaks %s; what is asked is of %s", f.target, target.Protocol, protocol)
	}
	bound := set.Bind(principal, workload, target)
	explained := make([]explanation, len(asked))
	for i, a := range asked {
		decision, results := bound.ExplainAsked(at, policy.SessionFacts{}, a)
		explained[i] = newExplanation(a, decision, results)
	}
	return explained, nil
}

// asked reads what is asked, and which protocol's that is.
func (f *explainFlags) asked(commandGiven bool) ([]policy.Asked, string, error) {
	isCommand := commandGiven || f.interactive || f.subsystem != "" || f.forward != ""
	switch {
	case isCommand && (f.statement != "" || f.file != "" || f.request != ""):
		return nil, "", errors.New("--interactive, --subsystem and --forward are for SSH, without a statement, file or request")
	case f.statement != "":
		statements, err := readStatements()(f.statement)
		if err != nil {
			return nil, "", fmt.Errorf("the statement is refused, whatever the policy: %w", err)
		}
		asked := make([]policy.Asked, len(statements))
		for i := range statements {
			asked[i].Statement = &statements[i]
		}
		return asked, policy.ProtocolPostgres, nil
	case isCommand:
		c := readCommand(f.command)
		c.Interactive, c.Subsystem, c.Forward = f.interactive, f.subsystem, f.forward
		return []policy.Asked{{Command: &c}}, policy.ProtocolSSH, nil
	case f.file != "":
		file, err := readFile(f.file)
		return []policy.Asked{{File: file}}, policy.ProtocolSSH, err
	case f.request != "":
		request, err := readRequest(f.request)
		return []policy.Asked{{Request: request}}, policy.ProtocolKubernetes, err
	}
	return []policy.Asked{{}}, "", nil
}

// explanation is a decision and how it came about, as it is printed.
type explanation struct {
	Asked     string           `json:"asked"`
	Decision  policy.Action    `json:"decision"`
	Policy    string           `json:"policy,omitempty"`
	Rule      string           `json:"rule,omitempty"`
	Message   string           `json:"message,omitempty"`
	Approvals []neededApproval `json:"approvals,omitempty"`
	Shadows   []shadowDecision `json:"shadows,omitempty"`
	Rules     []ruleOutcome    `json:"rules"`
}

type neededApproval struct {
	Policy  string               `json:"policy"`
	Rule    string               `json:"rule"`
	Message string               `json:"message,omitempty"`
	Spec    *policy.ApprovalSpec `json:"approval"`
}

type shadowDecision struct {
	Policy   string        `json:"policy"`
	Rule     string        `json:"rule,omitempty"`
	Decision policy.Action `json:"decision"`
}

type ruleOutcome struct {
	Policy  string        `json:"policy"`
	Rule    string        `json:"rule"`
	Then    policy.Action `json:"then"`
	When    string        `json:"when"`
	Outcome string        `json:"outcome"`
}

func newExplanation(asked policy.Asked, d policy.Decision, results []policy.RuleResult) explanation {
	e := explanation{Asked: describeAsked(asked), Decision: d.Action, Policy: d.Policy, Rule: d.Rule, Message: d.Message, Rules: []ruleOutcome{}}
	for _, n := range d.Approvals {
		e.Approvals = append(e.Approvals, neededApproval{n.Policy, n.Rule, n.Message, n.Spec})
	}
	for _, s := range d.Shadows {
		e.Shadows = append(e.Shadows, shadowDecision{s.Policy, s.Rule, s.Action})
	}
	for _, r := range results {
		e.Rules = append(e.Rules, ruleOutcome{r.Policy, r.Rule, r.Then, r.When, outcomeOf(r, d.Action)})
	}
	return e
}

func describeAsked(a policy.Asked) string {
	switch {
	case a.Statement != nil:
		return a.Statement.Kind
	case a.Command != nil && a.Command.Forward != "":
		return "forwarding " + a.Command.Forward
	case a.Command != nil && a.Command.Subsystem != "":
		return "subsystem " + a.Command.Subsystem
	case a.Command != nil && a.Command.Text == "":
		return "a shell"
	case a.Command != nil && len(a.Command.Programs) == 0:
		return a.Command.Text + " (its programs can't be told)"
	case a.Command != nil:
		return a.Command.Text + " (" + strings.Join(a.Command.Programs, ", ") + ")"
	case a.File != nil:
		return a.File.Op + " " + a.File.Path
	case a.Request != nil && a.Request.NonResourcePath != "":
		return a.Request.Verb + " " + a.Request.NonResourcePath
	case a.Request != nil:
		r := a.Request
		what := r.Verb + " " + strings.Trim(r.Resource+"."+r.Group, ".")
		if r.Subresource != "" {
			what += "/" + r.Subresource
		}
		return strings.TrimRight(what+" "+strings.Trim(r.Namespace+"/"+r.Name, "/"), " ")
	}
	return "open a session"
}

func outcomeOf(r policy.RuleResult, action policy.Action) string {
	var said string
	switch {
	case !r.Applies:
		return "does not apply: " + r.Why
	case r.Err != nil:
		said = "denies, since it can't be evaluated: " + r.Err.Error()
	case !r.Asked:
		said = "is about something else"
	case r.Decided && r.Shadow:
		said = "would decide"
	case r.Decided && action == policy.Approve:
		said = "needs its approval"
	case r.Decided:
		said = "decides"
	case r.Matched:
		said = "matches"
	default:
		said = "does not match"
	}
	if r.Shadow {
		said += " (shadow: without effect)"
	}
	return said
}

func (e *explanation) print(w io.Writer) error {
	line := printable(e.Asked) + ": " + string(e.Decision)
	if e.Policy != "" {
		line += " by " + e.Policy + "/" + e.Rule
	}
	if e.Message != "" {
		line += ": " + printable(e.Message)
	}
	fmt.Fprintln(w, line)
	for _, a := range e.Approvals {
		fmt.Fprintf(w, "  needs %s/%s: %s\n", a.Policy, a.Rule, describeApproval(a.Spec))
		if a.Message != "" {
			fmt.Fprintf(w, "    they are told: %s\n", printable(a.Message))
		}
	}
	for _, s := range e.Shadows {
		fmt.Fprintf(w, "  shadow: %s would %s\n", strings.TrimSuffix(s.Policy+"/"+s.Rule, "/"), wouldDo(s.Decision))
	}
	table := newTable(w)
	for _, r := range e.Rules {
		fmt.Fprintf(table, "  %s/%s\t%s\t%s\n", r.Policy, r.Rule, r.Then, printable(r.Outcome))
	}
	return table.Flush()
}

func wouldDo(a policy.Action) string {
	if a == policy.Approve {
		return "ask for an approval"
	}
	return string(a)
}

// describeApproval says who is asked, and how.
func describeApproval(a *policy.ApprovalSpec) string {
	parts := []string{fmt.Sprintf("%d of %s within %s", a.Count, describePeople(a.From), shortDuration(a.Within))}
	if a.Per == policy.PerSession {
		parts = append(parts, "once for the session")
	} else {
		parts = append(parts, "each time")
	}
	if a.Mode == policy.ModeRetry {
		parts = append(parts, "the client is refused and tries again (retry)")
	} else {
		parts = append(parts, "the client waits (hold)")
	}
	if a.Standing > 0 {
		parts = append(parts, "a yes may stand for "+shortDuration(a.Standing))
	}
	for _, s := range a.Escalate {
		parts = append(parts, fmt.Sprintf("after %s also %s", shortDuration(s.After), describePeople(s.To)))
	}
	return strings.Join(parts, "; ")
}

func describePeople(p policy.PrincipalSelect) string {
	var names []string
	for _, g := range p.Groups {
		names = append(names, "group "+g)
	}
	return strings.Join(slices.Concat(names, p.Subjects), " or ")
}

// shortDuration writes whole minutes and hours as documents do.
func shortDuration(d policy.Duration) string {
	s := d.String()
	if short, ok := strings.CutSuffix(s, "m0s"); ok {
		s = short + "m"
	}
	if short, ok := strings.CutSuffix(s, "h0m"); ok {
		s = short + "h"
	}
	return s
}
