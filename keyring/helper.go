package keyring

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"encfsrun/fs/guarded"
)

// What goes to the helper on its standard input; both ends are the same
// binary, so it carries no version. The helper answers with ikmSize bytes on
// its standard output.
//
//	memory in KiB, time, parallelism   3 × u32
//	length of the passphrase           u32
//	salt                               32
//	passphrase                         1 to MaxPassphrase
const requestHeaderSize = 4*4 + SaltSize

// HelperMain is the body of the helper process that derives a key: it reads
// one request from descriptor 0, and writes the derived key to descriptor 1. The caller
// does nothing before it, and exits after it.
func HelperMain() error {
	// Under memory pressure this process is the one to kill, not the daemon
	// that waits for it. Later the process is non-dumpable and an ordinary user
	// can't write the file any more. Only a hint: no error.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0)
	if err := guarded.Harden().Err(); err != nil {
		return err
	}
	passphrase, salt, params, err := readRequest(0)
	if err != nil {
		return err
	}
	defer passphrase.Destroy()
	ikm, err := InProcessKDF(passphrase, salt, params)
	if err != nil {
		return err
	}
	defer ikm.Destroy()
	_, err = os.Stdout.Write(ikm.Bytes())
	return err
}

func readRequest(fd int) (passphrase *guarded.Buffer, salt []byte, p Params, err error) {
	r, err := newReader(context.Background(), fd)
	if err != nil {
		return nil, nil, p, err
	}
	defer r.close()
	header := make([]byte, requestHeaderSize)
	if n, err := r.fill(header); err != nil || n < len(header) {
		return nil, nil, p, errors.Join(errors.New("request for a key derivation is cut off"), err)
	}
	u32 := func(i int) uint32 { return binary.LittleEndian.Uint32(header[4*i:]) }
	p = Params{MemoryKiB: u32(0), Time: u32(1), Parallelism: u32(2)} // for InProcessKDF to judge
	length := u32(3)
	if length == 0 || length > MaxPassphrase {
		return nil, nil, p, fmt.Errorf("request for a key derivation has a passphrase of %d bytes", length)
	}
	if passphrase, err = guarded.NewBuffer(int(length)); err != nil {
		return nil, nil, p, err
	}
	if n, err := r.fill(passphrase.Bytes()); err != nil || n < int(length) {
		passphrase.Destroy()
		return nil, nil, p, errors.Join(errors.New("request for a key derivation is cut off"), err)
	}
	return passphrase, header[4*4:], p, nil
}

// HelperKDF returns a KDF that starts a process for each derivation, so that
// its hundreds of megabytes and what is left of the passphrase in them are
// gone when it returns. command makes the process, which must call HelperMain;
// its standard input and output, and its standard error where not set, are set
// here. When ctx ends, so does the process. A derivation that needs more memory
// than is available now is not begun: else the kernel's out-of-memory killer
// would end it, or something else on the machine, after it took all there is.
func HelperKDF(ctx context.Context, command func() *exec.Cmd) KDF {
	return helperKDF(ctx, command, AvailableMemory)
}

func helperKDF(ctx context.Context, command func() *exec.Cmd, available func() (int64, error)) KDF {
	return func(passphrase *guarded.Buffer, salt []byte, p Params) (*guarded.Buffer, error) {
		if err := p.Validate(); err != nil {
			return nil, err
		}
		if len(salt) != SaltSize {
			return nil, fmt.Errorf("salt of %d bytes instead of %d", len(salt), SaltSize)
		}
		// Where the kernel does not say what is available, only trying tells.
		if bytes, err := available(); err == nil && bytes < int64(p.MemoryKiB)*1024 {
			return nil, &KDFError{MemoryKiB: p.MemoryKiB, Short: true, Available: bytes}
		}
		ikm, err := guarded.NewBuffer(ikmSize)
		if err != nil {
			return nil, err
		}
		if err := runHelper(ctx, command(), ikm.Bytes(), passphrase.Bytes(), salt, p); err != nil {
			ikm.Destroy()
			return nil, err
		}
		return ikm, nil
	}
}

// runHelper starts the helper, has it fill ikm, and reaps it.
func runHelper(ctx context.Context, cmd *exec.Cmd, ikm, passphrase, salt []byte, p Params) error {
	failed := func(err error) error { return &KDFError{MemoryKiB: p.MemoryKiB, Err: err} }
	request, requestIn, err := os.Pipe()
	if err != nil {
		return failed(err)
	}
	defer requestIn.Close()
	answer, answerIn, err := os.Pipe()
	if err != nil {
		request.Close()
		return failed(err)
	}
	defer answer.Close()
	said := &limitedText{}
	cmd.Stdin, cmd.Stdout = request, answerIn
	if cmd.Stderr == nil {
		cmd.Stderr = said
	}
	err = cmd.Start()
	// The helper's ends: were they open here, its death would not end a read or
	// a write.
	request.Close()
	answerIn.Close()
	if err != nil {
		return failed(err)
	}
	disarm := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	n, talkErr := askHelper(ctx, requestIn, answer, ikm, passphrase, salt, p)
	if talkErr != nil {
		_ = cmd.Process.Kill()
	}
	waitErr := cmd.Wait()
	disarm()
	return helperOutcome(ctx, n, talkErr, waitErr, said.String(), p)
}

// askHelper writes the request, straight from the guarded passphrase, and
// reads the answer straight into ikm.
func askHelper(ctx context.Context, requestIn, answer *os.File, ikm, passphrase, salt []byte, p Params) (int, error) {
	header := make([]byte, 0, requestHeaderSize)
	for _, v := range []uint32{p.MemoryKiB, p.Time, p.Parallelism, uint32(len(passphrase))} {
		header = binary.LittleEndian.AppendUint32(header, v)
	}
	header = append(header, salt...)
	for _, part := range [][]byte{header, passphrase} {
		// A helper that died has said why in its status.
		if _, err := requestIn.Write(part); err != nil && !errors.Is(err, syscall.EPIPE) {
			return 0, err
		}
	}
	requestIn.Close()
	r, err := newReader(ctx, int(answer.Fd()))
	if err != nil {
		return 0, err
	}
	defer r.close()
	return r.fill(ikm)
}

// helperOutcome says in one error what became of a helper that was reaped.
func helperOutcome(ctx context.Context, n int, talkErr, waitErr error, said string, p Params) error {
	e := &KDFError{MemoryKiB: p.MemoryKiB}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		e.Err = context.Cause(ctx)
	case talkErr != nil:
		e.Err = talkErr
	case errors.As(waitErr, &exit):
		status, _ := exit.Sys().(syscall.WaitStatus)
		e.Killed = status.Signaled() && status.Signal() == syscall.SIGKILL
		e.Err = fmt.Errorf("the helper ended with %v", waitErr)
		if said != "" {
			e.Err = fmt.Errorf("the helper ended with %w: %s", waitErr, said)
		}
	case waitErr != nil:
		e.Err = waitErr
	case n != ikmSize:
		e.Err = fmt.Errorf("the helper answered %d bytes instead of %d", n, ikmSize)
	default:
		return nil
	}
	return e
}

// limitedText keeps the first line of what a helper says on standard error,
// and at most 1 KiB: Go's own "out of memory" is the first line of pages.
type limitedText struct{ text []byte }

func (t *limitedText) Write(b []byte) (int, error) {
	t.text = append(t.text, b[:min(len(b), 1024-len(t.text))]...)
	return len(b), nil
}

func (t *limitedText) String() string {
	line, _, _ := strings.Cut(string(t.text), "\n")
	return strings.TrimSpace(line)
}
