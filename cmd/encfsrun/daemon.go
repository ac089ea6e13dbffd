package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"encfsrun/fs"
	"encfsrun/fs/guarded"
	"encfsrun/fs/vault"
	"encfsrun/fs/vault/disk"
	"encfsrun/fs/vault/tree"
	"encfsrun/keyring"
	"encfsrun/launcher/wire"
)

// wireFD is the daemon's end of the connection to its launcher.
const wireFD = 3

// daemonMain is the whole life of a daemon: harden; read the configuration; ask for the passkey and open the vault; say ready;
// take the descriptor of the mount and serve it until the kernel lets go; wipe; say so; end.
//
// Its launcher may go when it has what it waits for (a mount in the background), or die: the kernel lets go of a sandbox's mount
// then too, so that the end is always the same.
func daemonMain() int {
	hardening := guarded.Harden() // before anything else: a secret may be on its way
	conn, err := wire.FromFD(wireFD)
	if err != nil {
		newMessages(os.Stderr).fail("the daemon is started by encfsrun mount and run only", "", exitUsage)
		return exitUsage
	}
	d := &daemon{conn: conn, app: &app{messages: newMessages(os.Stderr), disk: disk.OS()}}
	defer conn.Close()
	if err = hardening.Err(); err == nil {
		err = d.live()
	}
	d.release()
	report := finishedMessage{}
	if err != nil {
		report.Error = failureOf(err)
	}
	conn.Send(daemonMessage{Finished: &report}) // nobody may be there any more
	return exitCode(err)
}

// daemon is the process that holds the keys and serves one mount.
type daemon struct {
	app       *app
	conn      *wire.Conn
	config    daemonConfig
	passkeyFD int // the passkey's descriptor as the user numbers it
	unlocked  *unlocked
	vault     *vault.Vault
	session   *vault.Session // of a writable mount
	pool      *guarded.Pool
	dirty     *guarded.Pool // what was written and is not in the log yet, of a writable mount
	cache     *guarded.Cache
	control   *controlServer
}

func (d *daemon) live() error {
	files, err := d.conn.Receive(&d.config)
	if err != nil {
		return fmt.Errorf("read the daemon's configuration: %w", err)
	}
	d.app.messages.quiet, d.app.messages.json = d.config.Quiet, d.config.JSON
	d.app.stateDir = d.config.StateDir
	if d.config.Source.FD >= 0 {
		if len(files) != 1 {
			return errors.New("the descriptor of the passkey did not reach the daemon")
		}
		d.passkeyFD = d.config.Source.FD
		// Descriptors arrive under new numbers.
		if d.config.Source.FD, err = unix.FcntlInt(files[0].Fd(), unix.F_DUPFD_CLOEXEC, wireFD+1); err != nil {
			return fmt.Errorf("take over the passkey's descriptor: %w", err)
		}
		files[0].Close()
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	next := d.listen(cancel)
	if err := d.open(ctx); err != nil {
		return err
	}
	if err := d.separate(); err != nil {
		return err
	}
	maxRead := fs.MaxRead(d.cacheBudget())
	if err := d.conn.Send(daemonMessage{Ready: &readyMessage{MaxRead: maxRead}}); err != nil {
		return err
	}
	return d.serve(<-next)
}

// attachment is the launcher's second message, or why there is none.
type attachment struct {
	attachMessage
	files []*os.File
	err   error
}

// listen waits for the launcher's second message. That the launcher has ended is noticed at once, and then gone is called: a
// prompt that outlived it would take from the terminal what is typed for the shell.
func (d *daemon) listen(gone func()) <-chan attachment {
	next := make(chan attachment, 1)
	go func() {
		var a attachment
		if a.files, a.err = d.conn.Receive(&a.attachMessage); a.err != nil {
			gone()
		}
		next <- a
	}()
	return next
}

// open asks for the passkey, opens the vault and takes the guarded memory. Ctrl-C at the prompt, and the end of the launcher,
// end it.
func (d *daemon) open(ctx context.Context) (err error) {
	ctx, stop := signal.NotifyContext(ctx, heeded(syscall.SIGTERM, syscall.SIGHUP)...)
	defer stop()
	if d.unlocked, err = d.app.unlock(ctx, d.config.Vault, d.config.Source); err != nil {
		return d.asGiven(err)
	}
	d.unlocked.Master.Destroy() // a mount needs no new slots
	options, err := d.config.Open.options(d.app)
	if err != nil {
		return err
	}
	options.Pins = d.app.pins()
	if d.config.Budget == 0 {
		if d.config.Budget, err = guarded.DefaultBudget(d.config.Access.Writable); err != nil {
			return err
		}
	}
	if d.config.Access.Writable {
		return d.openWritable(options)
	}
	if d.vault, err = d.unlocked.Open(d.app.disk, options); err != nil {
		return err
	}
	return d.makeCache(d.cacheBudget())
}

// dirtyShare is the part of the guarded memory of a writable mount that holds what was written and is not in the log yet.
const dirtyShare = 4

// openWritable opens the vault for the one session of writing, and cleans its log where that is due.
func (d *daemon) openWritable(options vault.Options) (err error) {
	options.Stale = func(block uint64) { d.cache.Drop([]uint64{block}) }
	if d.vault, err = d.unlocked.OpenWriter(d.app.disk, options); err != nil {
		return err
	}
	if d.dirty, err = guarded.NewPool(fs.ChunkSize, d.config.Budget/dirtyShare); err != nil {
		return err
	}
	if err = d.makeCache(d.cacheBudget()); err != nil {
		return err
	}
	if d.session, err = d.vault.Begin(); err != nil {
		return err
	}
	return d.session.Maintain()
}

// cacheBudget is what decrypted blocks may take of the guarded memory, in bytes.
func (d *daemon) cacheBudget() int64 {
	if d.config.Access.Writable {
		return d.config.Budget - d.config.Budget/dirtyShare
	}
	return d.config.Budget
}

func (d *daemon) makeCache(budget int64) (err error) {
	if d.pool, err = guarded.NewPool(vault.PlainSize, budget); err != nil {
		return err
	}
	d.cache = guarded.NewCache(d.pool, d.vault.LoadBlock)
	return nil
}

// asGiven names the passkey's descriptor as the user did.
func (d *daemon) asGiven(err error) error {
	if d.config.Source.FD < 0 {
		return err
	}
	var passkey *keyring.PasskeyError
	var unsafe *keyring.UnsafeFileError
	origin := fmt.Sprintf("--passkey-fd %d", d.passkeyFD)
	switch {
	case errors.As(err, &passkey):
		passkey.Origin = origin
	case errors.As(err, &unsafe):
		unsafe.Origin, unsafe.Path = origin, fmt.Sprintf("/dev/fd/%d", d.passkeyFD)
	}
	return err
}

// separate takes the daemon out of its launcher's session and working directory: signals of the terminal are the program's,
// and SIGTERM is for the launcher to obey while it lives.
func (d *daemon) separate() error {
	signal.Ignore(syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGTSTP, syscall.SIGPIPE)
	if _, err := unix.Setsid(); err != nil && !errors.Is(err, unix.EPERM) { // EPERM: it leads a session already
		return fmt.Errorf("start a session for the daemon: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return fmt.Errorf("leave the working directory: %w", err)
	}
	log.SetOutput(io.Discard) // go-fuse's own lines could hold names
	return nil
}

func (d *daemon) serve(attach attachment) error {
	if errors.Is(attach.err, io.EOF) {
		return errors.New("the launcher ended before there was a mount")
	}
	if attach.err != nil {
		return attach.err
	}
	if attach.Abandon {
		return nil
	}
	if len(attach.files) != 1 {
		return errors.New("the mount's descriptor did not reach the daemon")
	}
	options := fs.Options{RefuseOutsiders: attach.Mounted.Sandboxed, OnIntegrity: d.damaged, PageCache: d.config.Access.PageCache}
	if d.session != nil {
		options.Store, options.Dirty = d.session, d.dirty
	}
	if attach.Mounted.Sandboxed || os.Getuid() != 0 {
		options.Owner = &fs.Owner{UID: uint32(attach.Mounted.UID), GID: uint32(attach.Mounted.GID)}
	}
	system := fs.New(d.vault, d.cache, options)
	server, err := fs.NewServer(attach.files[0], system, attach.Mounted.MaxRead)
	if err != nil {
		return err
	}
	if err := d.startControl(attach.attachMessage, system); err != nil {
		if !attach.Mounted.Sandboxed {
			return err
		}
		// A run ends with its launcher and needs no umount: another user who makes our folder in /tmp first must not stop it.
		d.app.messages.warn("status will not show this run: %v", err)
	}
	served := make(chan struct{})
	go func() { server.Serve(); close(served) }()
	if err := d.conn.Send(daemonMessage{Serving: true}); err != nil {
		return err
	}
	go tidyWhenIdle(d.cache, served)
	switch {
	case attach.Background:
		d.background(attach.Mounted.Dir, attach.Mounted.Device, system, served)
	case !attach.Mounted.Sandboxed: // a sandbox's mount goes with the launcher
		go func() {
			if _, err := d.conn.Receive(&attachMessage{}); errors.Is(err, io.EOF) {
				// The launcher was killed: nobody else is there now to obey signals.
				d.background(attach.Mounted.Dir, attach.Mounted.Device, system, served)
			}
		}()
	}
	<-served
	err = d.finish(system)
	system.Wipe()
	if err != nil && attach.Background {
		stay() // nobody is there to be told: status shows it
	}
	return err
}

// stay keeps the daemon until a signal asks for its end.
func stay() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	<-signals
}

// finish makes everything durable once nobody can write any more, and closes the session.
func (d *daemon) finish(system *fs.FS) error {
	if d.session == nil {
		return nil
	}
	err := system.Close()
	if err == nil {
		err = d.session.Close()
	}
	if err != nil {
		if d.control != nil {
			d.control.reporter.lost.Store(true)
		}
		return &unsyncedError{d.config.Vault, err}
	}
	d.session = nil
	return nil
}

// damaged tells the user of a file with a block that does not authenticate; the program got EIO.
func (d *daemon) damaged(ino tree.Ino, err *vault.IntegrityError) {
	d.app.messages.alert("a program was refused a damaged file (inode %d): %v", ino, err)
}

// release wipes all that was secret. Nobody is served any more.
func (d *daemon) release() {
	if d.control != nil {
		d.control.close()
	}
	if d.session != nil {
		d.session.Abort()
	}
	if d.cache != nil {
		d.cache.Close()
	}
	for _, pool := range []*guarded.Pool{d.pool, d.dirty} {
		if pool != nil {
			pool.Close()
		}
	}
	if d.vault != nil {
		d.vault.Close()
	}
	if d.unlocked != nil {
		d.unlocked.Close()
	}
	runtime.GC() // erases the key schedules of the last blocks: see tidyWhenIdle
}
