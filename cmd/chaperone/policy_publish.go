package main

import (
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"chaperone.dev/chaperone/internal/desk/api"
	"chaperone.dev/chaperone/internal/desk/client"
	"chaperone.dev/chaperone/pkg/policy"
)

func policyPublishCommand(flags *deskFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "publish DIR",
		Short: "Put a folder's documents in force on all nodes that take published ones",
		Long: "Publish all documents of a folder (*.yaml and *.yml, but for test cases) in the place of those that were published before.\n" +
			"They must load by themselves, and hold neither a Node nor a Sink document. Admins only.",
		Args: usageArgs(cobra.ExactArgs(1)),
	}
	flags.bind(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		files, err := readDocuments(args[0])
		if err != nil {
			return err
		}
		return flags.asks(func(cmd *cobra.Command, c *client.Client, _ []string) error {
			p, err := c.Publish(cmd.Context(), files)
			if err != nil {
				return fmt.Errorf("not published:\n%w", err)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "Published %s: serial %d, revision %s\n", plural(uint64(len(files)), "file"), p.Serial, printable(p.Revision))
			return err
		})(cmd, args)
	}
	return cmd
}

// readDocuments reads a folder's files, and checks them as the sink will.
func readDocuments(dir string) (map[string]string, error) {
	contents, err := policy.ReadFolder(dir)
	if err != nil {
		return nil, err
	}
	if _, err := policy.LoadFiles(contents); err != nil {
		return nil, fmt.Errorf("not published:\n%w", err)
	}
	files := make(map[string]string, len(contents))
	for path, data := range contents {
		files[filepath.Base(path)] = string(data)
	}
	return files, nil
}

func policyPublishedCommand(flags *deskFlags) *cobra.Command {
	cmd := &cobra.Command{Use: "published", Short: "Show which documents are published, and by whom", Args: usageArgs(cobra.NoArgs)}
	return shows(flags, cmd, (*client.Client).Published, printPublished)
}

func printPublished(out io.Writer, p api.Published) error {
	if p.Revision == "" {
		contents := map[string][]byte{}
		for name, text := range p.Files {
			contents[name] = []byte(text)
		}
		// What doesn't load here was written for another release.
		if set, err := policy.LoadFiles(contents); err == nil {
			p.Revision = set.Revision
		}
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "Serial\t%d\n", p.Serial)
	if p.Revision != "" {
		fmt.Fprintf(w, "Revision\t%s\n", printable(p.Revision))
	}
	fmt.Fprintf(w, "Published by\t%s\nAt\t%s\n", personName(p.By.Subject, p.By.Issuer, p.By.Name), clock(p.At))
	for n, name := range slices.Sorted(maps.Keys(p.Files)) {
		head := ""
		if n == 0 {
			head = "Files"
		}
		fmt.Fprintf(w, "%s\t%s, %d bytes\n", head, printable(name), len(p.Files[name]))
	}
	return w.Flush()
}
