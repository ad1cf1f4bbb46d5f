// Command chaperone-sink is the central sink: it takes the nodes' recordings
// from NATS, verifies, keeps and indexes them, and serves them to auditors on a
// unix socket.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
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
		Short: "Verify, keep and serve the recordings of Chaperone's nodes",
		Long: `Verify, keep and serve the recordings of Chaperone's nodes.

The folder of --keys holds one file for each node, named <node>.pub: the node's
Ed25519 public key in base64, as its node.started event tells it.`,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return run(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.nats, "nats", "", `NATS servers, "tls://host:4222", several separated by ","`)
	f.StringVar(&o.seed, "nkey", "", "file of the sink's NKEY seed")
	f.StringVar(&o.creds, "creds", "", "file of the sink's NATS credentials, instead of --nkey")
	f.StringVar(&o.ca, "ca", "", "PEM file of the authorities of the NATS servers; empty: the system's")
	f.StringVar(&o.keys, "keys", "", "folder of the nodes' public keys")
	f.StringVar(&o.dir, "dir", "/var/lib/chaperone-sink", "folder of what is kept")
	f.StringVar(&o.socket, "socket", "/run/chaperone/sink.sock", "unix socket of the API")
	for _, name := range []string{"nats", "keys"} {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err) // the flag is declared above
		}
	}
	return cmd
}
