package main

import (
	"context"
	"errors"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"encfsrun/launcher"
)

// runFlags are the sandbox as the user asks for it.
type runFlags struct {
	open   openFlags
	budget byteSize
	at     string
	chdir  string
	net    string
	user   string
	name   string
	binds  []launcher.Bind
	env    []string

	writable bool
	cache    pageCacheFlag
}

func (a *app) runCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run [flags] VAULT [--] CMD [ARG…]",
		Short: "run a program out of a vault, in a sandbox",
		Long: `run asks for the passkey, mounts the decrypted tree privately and, without --writable, read-only, and runs CMD in a sandbox: its own file system
with the tree at --at, its own processes, and, without --net host, no network. Nobody outside sees the tree. At the end all
is unmounted and wiped. The exit status is CMD's (128+n on signal n); 125 says that encfsrun itself failed, 126 that CMD
can't be executed, 127 that it, or its interpreter, was not found.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if dash := cmd.ArgsLenAtDash(); dash == 0 || len(args) == 0 {
				return ownFailure(usagef("VAULT is missing; see: encfsrun run --help"))
			}
			command := args[1:]
			if len(command) > 0 && command[0] == "--" && cmd.ArgsLenAtDash() < 0 { // after VAULT, flags end and "--" reaches us
				command = command[1:]
			}
			if len(command) == 0 {
				return ownFailure(usagef("CMD is missing; see: encfsrun run --help"))
			}
			status, err := a.run(cmd.Context(), args[0], command, &f)
			return runResult(a, status, err)
		},
	}
	cmd.Flags().SetInterspersed(false) // what follows VAULT is the program's
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return ownFailure(usagef("%v; see: encfsrun run --help", err))
	})
	f.add(cmd.Flags())
	return cmd
}

func (f *runFlags) add(flags *pflag.FlagSet) {
	f.open.add(flags)
	flags.Var(&f.budget, "guarded-memory", "locked memory for contents (default: by the machine, at most 64 MiB, writable 256 MiB)")
	flags.BoolVar(&f.writable, "writable", false, "let the program change the vault")
	flags.Var(&f.cache, "page-cache", "on: the kernel keeps contents in its page cache, outside guarded memory, while CMD runs (faster)")
	f.at, f.net = launcher.DefaultAt, string(launcher.NetNone)
	filledVar(flags, &f.at, "at", "DIR", "where the program finds the tree")
	filledVar(flags, &f.chdir, "chdir", "DIR", "working directory of the program (default: --at)")
	filledVar(flags, &f.net, "net", "none|host", "network of the program: none (its own loopback) or host")
	filledVar(flags, &f.user, "user", "USER", "started by root: uid[:gid] or name that the program sees itself as")
	filledVar(flags, &f.name, "name", "NAME", "name that status shows")
	flags.Var(&bindFlag{binds: &f.binds}, "bind", "give the program a file or folder of this machine: SRC[:DST]")
	flags.Var(&bindFlag{binds: &f.binds, readOnly: true}, "ro-bind", "the same, read-only")
	filledListVar(flags, &f.env, "env", "K[=V]", "set a variable of the program, or pass one on; may be repeated")
}

// bindFlag collects --bind and --ro-bind in the order in which they were given, for a later one may lie in an earlier one.
type bindFlag struct {
	binds    *[]launcher.Bind
	readOnly bool
}

func (b *bindFlag) String() string { return "" }
func (b *bindFlag) Type() string   { return "SRC[:DST]" }
func (b *bindFlag) Set(text string) error {
	bind, err := launcher.ParseBind(text, b.readOnly)
	if err == nil {
		*b.binds = append(*b.binds, bind)
	}
	return err
}

// run builds the sandbox's plan, which finds most mistakes, before it asks for the passkey.
func (a *app) run(ctx context.Context, vaultPath string, command []string, f *runFlags) (launcher.Status, error) {
	options := launcher.Options{
		Command: command, At: f.at, Dir: f.chdir, Net: launcher.Net(f.net), Binds: f.binds, Env: f.env, User: f.user, Writable: f.writable,
	}
	if _, err := launcher.Build(options, launcher.ThisHost()); err != nil {
		return launcher.Status{}, err
	}
	daemon, err := a.startDaemon(ctx, vaultPath, &f.open, f.budget, access{f.writable, bool(f.cache)}, f.name)
	if err != nil {
		return launcher.Status{}, err
	}
	options.MaxRead = daemon.maxRead
	plan, err := launcher.Build(options, launcher.ThisHost())
	if err != nil {
		return launcher.Status{}, errors.Join(err, daemon.end())
	}
	if a.releaseSignals(); ctx.Err() != nil {
		return launcher.Status{}, errors.Join(context.Cause(ctx), daemon.end())
	}
	return launcher.Run(plan, daemon, launcher.RunOptions{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, EndTimeout: daemon.endTime})
}

// ownFailure makes an error of run exit with 125, whatever its kind: the other codes are the program's. Only a signal that ended
// the run before there was a program, as Ctrl-C at the prompt does, keeps its own.
func ownFailure(err error) error {
	f := failureOf(err)
	if f.Code > 128 {
		return f.err()
	}
	return &codeError{exitOwn, f.Message}
}

// runResult turns the end of a run into the end of this process.
func runResult(a *app, status launcher.Status, err error) error {
	var exec *launcher.ExecError
	var failed *launcher.FilesystemError
	switch {
	case errors.As(err, &failed) && failed.Stage == launcher.StageHang:
		return ownFailure(err) // whatever the program did: nobody knows what was wiped
	case errors.As(err, &exec):
		if failed != nil {
			a.messages.error(failed) // the program's exit code says more, but a failed end is never silent
		}
		return &codeError{exec.ExitCode(), exec.Error()}
	case errors.As(err, &failed) && failed.Stage == launcher.StageFinish && status.ExitCode() != 0:
		// The program failed and so did the end: its own status says more, and the failure is said.
		a.messages.error(err)
	case err != nil:
		return ownFailure(err)
	}
	if code := status.ExitCode(); code != 0 {
		return &exitStatus{code}
	}
	return nil
}
