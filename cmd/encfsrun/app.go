package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"

	"github.com/spf13/cobra"

	"encfsrun/fs/guarded"
	"encfsrun/fs/vault/disk"
)

// app is one invocation of the command line.
type app struct {
	messages  *messages
	stdout    io.Writer
	stateDir  string // --state-dir
	logFormat string // --log-format
	disk      disk.FS

	releaseSignals func() // ends what cancelOnSignal began; may be called again
}

// execute runs the command line and returns the exit code.
func execute(args []string) int {
	a := &app{messages: newMessages(os.Stderr), stdout: os.Stdout, disk: disk.OS()}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	a.releaseSignals = a.cancelOnSignal(cancel)
	defer a.releaseSignals()
	root := a.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if cause := context.Cause(ctx); err != nil && is[*signalError](cause) {
		a.messages.fail(cause.Error(), "", exitCode(cause))
		return exitCode(cause)
	}
	if err == nil {
		return exitOK
	}
	var done *exitStatus
	if errors.As(err, &done) {
		return done.code
	}
	a.messages.error(err)
	return exitCode(err)
}

// exitStatus ends the command with a code and without a message: what there was to say was said.
type exitStatus struct{ code int }

func (e *exitStatus) Error() string { return "ended" }

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "encfsrun COMMAND",
		Short:         "run code out of an encrypted, authenticated vault",
		Long:          rootLong,
		Args:          cobra.ArbitraryArgs, // else cobra's own error, which is no usage error
		RunE:          wantsCommand,
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			switch a.logFormat {
			case "text":
			case "json":
				a.messages.json = true
			default:
				err := usagef("--log-format is text or json, not %q", a.logFormat)
				if cmd.Name() == "run" {
					err = ownFailure(err)
				}
				return err
			}
			return nil
		},
	}
	root.SetOut(a.stdout)
	root.SetErr(os.Stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%v; see: %s --help", err, cmd.CommandPath())
	})
	flags := root.PersistentFlags()
	filledVar(flags, &a.stateDir, "state-dir", "DIR", "where this machine remembers what it has seen of vaults (default $STATE_DIRECTORY, else $XDG_STATE_HOME/encfsrun)")
	flags.BoolVarP(&a.messages.quiet, "quiet", "q", false, "print results, errors and warnings about security only")
	flags.StringVar(&a.logFormat, "log-format", "text", "messages as `text|json`")
	root.AddCommand(
		a.packCommand(), a.initCommand(), a.mountCommand(), a.runCommand(), a.umountCommand(), a.syncCommand(), a.statusCommand(),
		a.keyCommand(), a.checkCommand(), a.gcCommand(), a.lsCommand(), a.catCommand(), a.exportCommand(), a.doctorCommand(),
	)
	return root
}

// wantsCommand is what a command does that is only there for those below it.
func wantsCommand(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("there is no command %q; see: %s --help", args[0], cmd.CommandPath())
	}
	return cmd.Help()
}

const rootLong = `encfsrun runs code out of an encrypted, authenticated vault.

  encfsrun pack ./app app.vault                  once, where the code is written
  encfsrun run app.vault -- python3 main.py      where it runs

Exit codes: 0 done; 1 other failure; 2 usage; 3 wrong passkey or no usable key slot; 4 not a vault, too new, or it can't be
read; 5 busy; 6 integrity failure, rollback or not the expected root; 7 the machine lacks something needed (see doctor); 8 accepted writes could not be made durable; 128+n stopped by
signal n. run: the program's own status, or 125 for a failure of encfsrun itself, 126 and 127 for a program that can't be
executed or found.`

// exactArgs wants n arguments, and names them in its error.
func exactArgs(names ...string) cobra.PositionalArgs { return rangeArgs(len(names), names...) }

func rangeArgs(least int, names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return usagef("%s is missing; see: %s --help", names[len(args)], cmd.CommandPath())
		case len(args) > len(names):
			return usagef("unexpected argument %q; see: %s --help", args[len(names)], cmd.CommandPath())
		}
		return nil
	}
}

// harden protects this process before it holds a secret.
func (a *app) harden() error { return guarded.Harden().Err() }

// printJSON prints a result. It goes to terminals too, and strings of others are in it.
func (a *app) printJSON(result any) error {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(result); err != nil {
		return err
	}
	_, err := io.WriteString(a.stdout, escapeJSON(text.String()))
	return err
}
