package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"chaperone.dev/chaperone/pkg/policy"
)

func policyTestCommand() *cobra.Command {
	var verbose bool
	cmd := &cobra.Command{
		Use:   "test DIR...",
		Short: "Decide the cases in folders' *_test.yaml files",
		Long: `Decide the cases in the *_test.yaml files of folders of documents, and print those
that came out otherwise than expected. Exits with 1 when there is one, and when a
folder has no cases at all.`,
		Args: cobra.MinimumNArgs(1),
	}
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "print all cases")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var all []policy.CaseResult
		for _, dir := range args {
			results, err := policy.RunTests(dir, readStatements())
			if err != nil {
				return err
			}
			if len(results) == 0 {
				return fmt.Errorf("%s has no cases; they are in *_test.yaml files", dir)
			}
			all = append(all, results...)
		}
		return printCases(cmd.OutOrStdout(), all, verbose)
	}
	return cmd
}

// printCases prints a table of the cases that failed, or of all, and counts them.
func printCases(w io.Writer, results []policy.CaseResult, all bool) error {
	table, failed := newTable(w), 0
	for _, r := range results {
		result := "ok"
		if !r.Passed {
			result = "FAIL"
			failed++
		} else if !all {
			continue
		}
		fmt.Fprintf(table, "%s\t%s:%d\t%s\twant %s\tgot %s\n", result, r.File, r.Line, brief(r.Name, 60), wanted(r), got(r))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(w, "%d passed, %d failed\n", len(results)-failed, failed); err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d cases failed", failed, len(results))
	}
	return nil
}

func wanted(r policy.CaseResult) string {
	want := string(r.Want)
	if r.WantRule != "" {
		want += " by rule " + r.WantRule
	}
	if r.WantShadows != nil {
		want += ", shadow [" + strings.Join(r.WantShadows, ", ") + "]"
	}
	return want
}

func got(r policy.CaseResult) string {
	text := describeDecision(r.Got)
	if r.WantShadows != nil {
		text += ", shadow [" + strings.Join(shadowsOf(r.Got), ", ") + "]"
	}
	if !r.Passed && r.Got.Action == policy.Deny && r.Got.Message != "" {
		text += ": " + brief(r.Got.Message, 120)
	}
	return text
}

// describeDecision names a decision and the rules behind it.
func describeDecision(d policy.Decision) string {
	text := string(d.Action)
	switch {
	case d.Action == policy.Approve:
		rules := make([]string, len(d.Approvals))
		for i, n := range d.Approvals {
			rules[i] = n.Policy + "/" + n.Rule
		}
		text += " by " + strings.Join(rules, " and ")
	case d.Policy != "":
		text += " by " + d.Policy + "/" + d.Rule
	}
	return text
}

func shadowsOf(d policy.Decision) []string {
	list := make([]string, len(d.Shadows))
	for i, s := range d.Shadows {
		list[i] = strings.TrimSuffix(s.Policy+"/"+s.Rule, "/")
	}
	return list
}
