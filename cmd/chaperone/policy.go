package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"chaperone.dev/chaperone/internal/pgsql"
	"chaperone.dev/chaperone/pkg/policy"
)

func policyCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "policy", Short: "Check, explain and test documents"}
	cmd.AddCommand(policyCheckCommand(), policyExplainCommand(), policyTestCommand())
	return cmd
}

func policyCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check DIR",
		Short: "Read a folder of documents as the daemon would",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			set, err := policy.Load(args[0])
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "revision %s\n", set.Revision)
			for kind, count := range set.Counts() {
				fmt.Fprintf(cmd.OutOrStdout(), "%4d %s\n", count, kind)
			}
			return nil
		},
	}
}

func policyExplainCommand() *cobra.Command {
	var as, statement, targetName string
	var groups []string
	cmd := &cobra.Command{
		Use:   "explain DIR --as SUBJECT@ISSUER --target NAME --statement SQL",
		Short: "Say which rule decides a statement, and why the others do not",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			set, err := policy.Load(args[0])
			if err != nil {
				return err
			}
			subject, issuer, ok := cutLast(as, "@")
			if !ok {
				return fmt.Errorf("--as %q is not SUBJECT@ISSUER", as)
			}
			target := set.Target(targetName)
			if target == nil {
				return fmt.Errorf("no Target document is named %q", targetName)
			}
			query, err := pgsql.NewParser(pgsql.Options{}).Parse(statement)
			if err != nil {
				return fmt.Errorf("the statement is refused, whatever the policy: %w", err)
			}
			bound := set.Bind(policy.Principal{Subject: subject, Issuer: issuer, Groups: groups}, policy.WorkloadFacts{},
				policy.TargetFacts{Name: targetName, Protocol: target.Spec.Protocol, Labels: target.Metadata.Labels})
			for _, s := range query.Statements {
				facts := s.Facts(statement)
				decision, results := bound.Explain(time.Now(), policy.SessionFacts{}, &facts)
				explain(cmd.OutOrStdout(), facts, decision, results)
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&as, "as", "", "principal, as subject@issuer (required)")
	flags.StringSliceVar(&groups, "groups", nil, "groups of the principal")
	flags.StringVar(&targetName, "target", "", "name of the Target document (required)")
	flags.StringVar(&statement, "statement", "", "SQL (required)")
	for _, name := range []string{"as", "target", "statement"} {
		_ = cmd.MarkFlagRequired(name)
	}
	return cmd
}

func explain(w io.Writer, facts policy.Statement, decision policy.Decision, results []policy.RuleResult) {
	fmt.Fprintf(w, "%s: %s %s\n", facts.Kind, decision.Action, decision.Message)
	table := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	for _, r := range results {
		fmt.Fprintf(table, "  %s/%s\t%s\t%s\n", r.Policy, r.Rule, r.Then, ruleOutcome(r))
	}
	table.Flush()
}

func ruleOutcome(r policy.RuleResult) string {
	switch {
	case !r.Applies:
		return "does not apply: " + r.Why
	case r.Err != nil:
		return "denies, since it can't be evaluated: " + r.Err.Error()
	case r.Decided:
		return "decides"
	case r.Matched:
		return "matches"
	}
	return "does not match"
}

func policyTestCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "test DIR",
		Short: "Decide the cases in a folder's *_test.yaml files",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			parser := pgsql.NewParser(pgsql.Options{})
			results, err := policy.RunTests(args[0], func(sql string) ([]policy.Statement, error) {
				query, err := parser.Parse(sql)
				if err != nil {
					return nil, err
				}
				var facts []policy.Statement
				for _, s := range query.Statements {
					facts = append(facts, s.Facts(sql))
				}
				return facts, nil
			})
			if err != nil {
				return err
			}
			failed := 0
			for _, r := range results {
				if r.Passed {
					fmt.Fprintf(cmd.OutOrStdout(), "ok    %s\n", r.Name)
					continue
				}
				failed++
				fmt.Fprintf(cmd.OutOrStdout(), "FAIL  %s (%s:%d): want %s %s, got %s by %s/%s: %s\n",
					r.Name, r.File, r.Line, r.Want, r.WantRule, r.Got.Action, r.Got.Policy, r.Got.Rule, r.Got.Message)
			}
			if failed > 0 {
				return fmt.Errorf("%d of %d cases failed", failed, len(results))
			}
			return nil
		},
	}
}

// cutLast cuts at the last separator: subjects may hold "@" themselves.
func cutLast(s, separator string) (before, after string, found bool) {
	i := strings.LastIndex(s, separator)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(separator):], true
}
