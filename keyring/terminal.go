package keyring

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"encfsrun/fs/guarded"
)

// terminalPath is the controlling terminal, whatever the standard streams are.
const terminalPath = "/dev/tty"

// maxTyped is the kernel's limit of a typed line, with its newline (N_TTY_BUF_SIZE). It
// drops what is typed beyond it, so a line of that length may be cut.
const maxTyped = 4096

// terminal asks for secrets: echo is off from openTerminal to close. A signal
// that would end the process is caught meanwhile and ends the prompt with an
// *InterruptedError. Ctrl-Z stops the process at once (Go can't give a signal
// back to the kernel once it was caught): shells set their own modes then, and
// ours are set again at the continuation.
type terminal struct {
	fd     int
	ctx    context.Context
	cancel context.CancelCauseFunc

	signals chan os.Signal
	quit    chan struct{} // closed to end the handling of signals
	done    chan struct{} // closed when it has ended

	mu       sync.Mutex // over what follows, and the modes of the terminal
	saved    unix.Termios
	prompt   string // to be shown again after a stop
	answered bool   // the last prompt got its line
}

// openTerminal turns echo off. others are the sources to name in the
// *NoTerminalError.
func openTerminal(ctx context.Context, others []string) (*terminal, error) {
	// An open of our own: O_NONBLOCK here changes nobody else's descriptor.
	fd, err := openRetry(terminalPath, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY|unix.O_NONBLOCK)
	if err != nil {
		return nil, &NoTerminalError{Others: others, Err: err}
	}
	t := &terminal{fd: fd, signals: make(chan os.Signal, 4), quit: make(chan struct{}), done: make(chan struct{})}
	saved, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		unix.Close(fd)
		return nil, &NoTerminalError{Others: others, Err: err}
	}
	t.saved = *saved
	t.ctx, t.cancel = context.WithCancelCause(ctx)
	t.catchSignals()
	if err := t.hide(); err != nil {
		t.close()
		return nil, &NoTerminalError{Others: others, Err: err}
	}
	return t, nil
}

// close gives the terminal back as it was. It runs in a defer, so also on a
// panic.
func (t *terminal) close() {
	close(t.quit)
	<-t.done
	signal.Stop(t.signals)
	t.mu.Lock()
	if !t.answered {
		// Part of a secret may wait to be read: the shell must not get and echo it.
		_ = unix.IoctlSetInt(t.fd, unix.TCFLSH, unix.TCIFLUSH)
	}
	_ = unix.IoctlSetTermios(t.fd, unix.TCSETSW, &t.saved)
	t.mu.Unlock()
	t.cancel(nil)
	unix.Close(t.fd)
}

// hide turns echo off. Line editing and signals from the keyboard are left to
// the kernel.
func (t *terminal) hide() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	modes := t.saved
	modes.Lflag &^= unix.ECHO | unix.ECHONL
	modes.Lflag |= unix.ICANON | unix.ISIG
	modes.Iflag |= unix.ICRNL
	return unix.IoctlSetTermios(t.fd, unix.TCSETSW, &modes)
}

// catchSignals handles signals until close. One that is ignored (nohup) stays
// so.
func (t *terminal) catchSignals() {
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGCONT} {
		if !signal.Ignored(s) {
			signal.Notify(t.signals, s)
		}
	}
	go t.handleSignals()
}

func (t *terminal) handleSignals() {
	defer close(t.done)
	for {
		select {
		case <-t.quit:
			return
		case s := <-t.signals:
			if s == syscall.SIGCONT {
				t.resume()
			} else {
				t.cancel(&InterruptedError{s.(syscall.Signal)})
			}
		}
	}
}

// resume turns echo off again after a stop, during which a shell may have set
// the terminal's modes to its own liking, and shows the prompt again.
func (t *terminal) resume() {
	_ = t.hide()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.write(t.prompt)
}

// ask shows a prompt and reads one line into line, and returns the line's
// length without its newline.
func (t *terminal) ask(prompt string, line []byte) (int, error) {
	t.mu.Lock()
	t.prompt, t.answered = prompt, false
	t.write(prompt)
	t.mu.Unlock()
	n, err := t.readLine(line)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.prompt, t.answered = "", err == nil
	t.write("\n") // the one that was typed was not echoed
	return n, err
}

func (t *terminal) readLine(line []byte) (int, error) {
	r, err := newReader(t.ctx, t.fd)
	if err != nil {
		return 0, err
	}
	defer r.close()
	n := 0
	for n < len(line) {
		m, err := r.read(line[n:])
		if errors.Is(err, io.EOF) && n > 0 {
			return n, nil // Ctrl-D after some characters ends the line
		}
		if errors.Is(err, io.EOF) {
			return 0, &PasskeyError{Origin: "the terminal", Reason: "was closed, or Ctrl-D typed, before a passkey"}
		}
		if err != nil {
			return 0, err
		}
		n += m
		if line[n-1] == '\n' {
			break
		}
	}
	if n >= maxTyped {
		return 0, &PasskeyError{Origin: "the typed passphrase", Reason: fmt.Sprintf("is longer than a terminal can take (%d bytes)", maxTyped-2)}
	}
	return n - 1, nil
}

// write shows text; a terminal that can't be written to fails at the read.
func (t *terminal) write(text string) { _, _ = unix.Write(t.fd, []byte(text)) }

// askLine asks for one line that is destroyed when use returns.
func (t *terminal) askLine(prompt string, use func(line []byte) error) error {
	line, err := guarded.NewBuffer(maxTyped)
	if err != nil {
		return err
	}
	defer line.Destroy()
	n, err := t.ask(prompt, line.Bytes())
	if err != nil {
		return err
	}
	return use(line.Bytes()[:n])
}

// askPasskey asks for the passphrase of an existing vault.
func askPasskey(ctx context.Context, vault string) (passkey *Passkey, err error) {
	others := append(explicit{flag: "--passkey"}.others(), "$ENCFSRUN_PASSKEY_FILE", "$CREDENTIALS_DIRECTORY/"+CredentialName)
	t, err := openTerminal(ctx, others)
	if err != nil {
		return nil, err
	}
	defer t.close()
	// Quoted: a vault's name must not send control sequences to the terminal.
	err = t.askLine(fmt.Sprintf("passkey for %q: ", vault), func(line []byte) error {
		passkey, err = NewPassphrase(line)
		return err
	})
	return passkey, err
}
