package main

import (
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"chaperone.dev/chaperone/internal/bus"
)

func natsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "nats", Short: "Prepare the NATS servers that nodes publish to"}
	cmd.AddCommand(natsSetupCommand())
	return cmd
}

func natsSetupCommand() *cobra.Command {
	remote := bus.Remote{Role: bus.RoleAdmin, Once: true}
	var limits bus.Limits
	cmd := &cobra.Command{
		Use:   "setup --nats URL (--nkey FILE | --creds FILE)",
		Short: "Make the streams of events and recordings, or bring them up to date",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			conn, err := bus.Connect(remote)
			if err != nil {
				return err
			}
			defer conn.Close()
			js, err := jetstream.New(conn)
			if err != nil {
				return err
			}
			if err := bus.Setup(cmd.Context(), js, limits); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "streams %s and %s are there\n", bus.StreamEvents, bus.StreamRecordings)
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&remote.URL, "nats", "", `NATS servers, "tls://host:4222", several separated by "," (required)`)
	flags.StringVar(&remote.SeedFile, "nkey", "", "file of an administrator's NKEY seed")
	flags.StringVar(&remote.CredsFile, "creds", "", "file of an administrator's NATS credentials, instead of --nkey")
	flags.StringVar(&remote.CAFile, "ca", "", "PEM file of the authorities of the servers; empty: the system's")
	flags.IntVar(&limits.Replicas, "replicas", 1, "copies of each message in the cluster")
	_ = cmd.MarkFlagRequired("nats")
	return cmd
}
