// Command chaperone-sink is the central sink: it takes the nodes' recordings
// from NATS, verifies, keeps and indexes them, and serves them to auditors on a
// unix socket. It is also where people answer requests for approval, lock, and publish
// documents: its key signs what they decide.
package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"chaperone.dev/chaperone/internal/authority"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := rootCommand().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaperone-sink:", err)
		os.Exit(1)
	}
}

func rootCommand() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "chaperone-sink",
		Short: "Verify, keep and serve the recordings of Chaperone's nodes; let people approve",
		Long: `Verify, keep and serve the recordings of Chaperone's nodes; let people approve
what nodes ask for, lock, and publish documents.

The folder of --keys holds one file for each node, named <node>.pub: the node's
Ed25519 public key in base64, as its node.started event tells it.

The folder of --config holds a Sink document and the IdentityProvider documents that it
needs. Without it people answer on the unix socket alone, as local users.`,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return run(cmd.Context(), o) },
	}
	cmd.PersistentFlags().StringVar(&o.dir, "dir", "/var/lib/chaperone-sink", "folder of what is kept, the authority's key with it")
	cmd.AddCommand(keyCommand(&o))
	f := cmd.Flags()
	f.StringVar(&o.nats, "nats", "", `NATS servers, "tls://host:4222", several separated by ","`)
	f.StringVar(&o.seed, "nkey", "", "file of the sink's NKEY seed")
	f.StringVar(&o.creds, "creds", "", "file of the sink's NATS credentials, instead of --nkey")
	f.StringVar(&o.ca, "ca", "", "PEM file of the authorities of the NATS servers; empty: the system's")
	f.StringVar(&o.keys, "keys", "", "folder of the nodes' public keys")
	f.StringVar(&o.config, "config", "", "folder of the Sink document and its IdentityProvider documents")
	f.StringVar(&o.socket, "socket", "/run/chaperone/sink.sock", "unix socket of the API")
	for _, name := range []string{"nats", "keys"} {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err) // the flag is declared above
		}
	}
	return cmd
}

func keyCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "key",
		Short: "Print the authority's public key, for spec.authority.keys of Node documents",
		Long: `Print the public key, in base64, that verifies what people decide at this sink, for
spec.authority.keys of Node documents. The key is made when there is none.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			signer, err := authority.OpenSigner(o.dir)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), base64.StdEncoding.EncodeToString(signer.Public()))
			return err
		},
	}
}
