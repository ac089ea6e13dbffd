package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"encfsrun/launcher"
)

func (a *app) doctorCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "say what this machine offers, what encfsrun does without it, and what mends it",
		Long:  `doctor tries out what encfsrun needs of this machine, as the user who asks. Exit 7 if something needed is missing.`,
		Args:  exactArgs(),
		RunE: func(*cobra.Command, []string) error {
			checks := launcher.Doctor()
			missing := false
			for _, c := range checks {
				missing = missing || !c.OK
			}
			if asJSON {
				if err := a.printJSON(checks); err != nil {
					return err
				}
			} else {
				a.printChecks(checks)
			}
			if missing {
				return &exitStatus{exitMissing}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return cmd
}

func (a *app) printChecks(checks []launcher.Check) {
	for _, c := range checks {
		state := "ok"
		if !c.OK {
			state = "missing"
		}
		fmt.Fprintf(a.stdout, "%-16s %-8s %s\n", c.Name, state, c.Means)
		if c.Mend != "" {
			fmt.Fprintf(a.stdout, "%-16s %-8s mend it with: %s\n", "", "", c.Mend)
		}
	}
}
