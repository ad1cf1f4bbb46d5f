package main

import (
	"os"

	"github.com/spf13/cobra"

	"chaperone.dev/chaperone/internal/demo"
	"chaperone.dev/chaperone/internal/stage"
)

func demoCommand() *cobra.Command {
	var stay bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Walk through a planner job on this machine, in a namespace of its own",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := stage.Isolate(); err != nil {
				return err
			}
			binary, err := os.Executable()
			if err != nil {
				return err
			}
			return demo.Run(cmd.Context(), demo.Options{Binary: binary, Stay: stay, Out: cmd.OutOrStdout()})
		},
	}
	cmd.Flags().BoolVar(&stay, "stay", false, "leave everything up, with a shell to try it in")
	return cmd
}
