package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"chaperone.dev/chaperone/docs/schema"
	"chaperone.dev/chaperone/pkg/policy"
)

func policyCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "policy", Short: "Check, explain, test and replay documents"}
	cmd.AddCommand(policyCheckCommand(), policyExplainCommand(), policyTestCommand(), policyReplayCommand(), policySchemaCommand())
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
			return printCheck(cmd.OutOrStdout(), cmd.ErrOrStderr(), set)
		},
	}
}

func printCheck(out, warnings io.Writer, set *policy.Set) error {
	fmt.Fprintf(out, "revision %s\n", set.Revision)
	counts := set.Counts()
	for _, kind := range slices.Sorted(maps.Keys(counts)) {
		if _, err := fmt.Fprintf(out, "%4d %s\n", counts[kind], kind); err != nil {
			return err
		}
	}
	for _, warning := range unserved(set) {
		fmt.Fprintln(warnings, "warning:", warning)
	}
	return nil
}

// servedProtocols are what this release's node speaks. Documents may name
// others: they can be written, checked and tested before.
func servedProtocols() []string { return []string{policy.ProtocolPostgres} }

// unserved tells of the targets that a node doesn't let anybody through to,
// whatever the policies say.
func unserved(set *policy.Set) []string {
	var warnings []string
	for _, protocol := range set.Protocols() {
		if slices.Contains(servedProtocols(), protocol) {
			continue
		}
		var names []string
		for _, t := range set.Targets {
			if t.Spec.Protocol == protocol {
				names = append(names, t.Metadata.Name)
			}
		}
		warnings = append(warnings, fmt.Sprintf("this release's node does not serve %s yet: nobody gets through to Target %s", protocol, strings.Join(names, ", ")))
	}
	return warnings
}

func policySchemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of the documents",
		Long: `Print the JSON Schema of the documents, for editors. Save it, and name it in the
first line of a file:

  # yaml-language-server: $schema=/usr/share/chaperone/schema.json

The schema knows each document by itself. What documents say of each other, and
expressions, are checked by "chaperone policy check".`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(schema.JSON)
			return err
		},
	}
}

// newTable lines up columns that are separated by tabs.
func newTable(w io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(w, 0, 4, 2, ' ', 0) }

// cutLast cuts at the last separator: subjects may hold "@" themselves.
func cutLast(s, separator string) (before, after string, found bool) {
	i := strings.LastIndex(s, separator)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(separator):], true
}
