package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNotFound says that no live daemon serves what was asked for.
var ErrNotFound = errors.New("no mount or run of that name")

// errGone says that a socket has no daemon behind it any more.
var errGone = errors.New("its daemon is gone")

const (
	// listTimeout is how long one daemon may take to answer.
	listTimeout = 2 * time.Second
	// lateTime is what it takes to note that those asked have not answered.
	lateTime = 500 * time.Millisecond
	// maxSockets bounds what is asked in one folder: its owner, who may be
	// hostile to the root that lists it, can make any number of sockets.
	maxSockets = 256
	// youngAge is how long a socket may be without listening. See Server.register.
	youngAge = time.Minute
)

// List asks every live daemon of this user, and for root of all users, all at
// once, and takes two seconds at most: a daemon that does not answer by then
// is listed as [NotAnswering], with what it said at its start. Sockets of dead
// daemons are removed. The order is that of the starts.
//
// Where the folder for this user's new sockets can't be trusted, that is an
// error beside whatever was found; all others are passed over, or a stranger
// could make every List fail by one directory in /tmp.
func (r *Registry) List(ctx context.Context) ([]Status, error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	var list collector
	var errs []error
	for i, f := range r.own() {
		if err := f.list(ctx, &list); err != nil && i == 0 {
			errs = append(errs, err)
		}
	}
	if r.uid == 0 {
		for _, f := range r.others() {
			list.wait.Go(func() { f.list(ctx, &list) })
		}
	}
	if !list.all(ctx) {
		// A folder that does not open: its owner's hung mount lies there.
		// What else was found counts.
		list.lock.Lock()
		list.found, list.closed = slices.Clone(list.found), true
		list.lock.Unlock()
	}
	slices.SortFunc(list.found, func(a, b Status) int {
		if order := a.Started.Compare(b.Started); order != 0 {
			return order
		}
		return strings.Compare(a.Socket, b.Socket)
	})
	return list.found, errors.Join(errs...)
}

// FindMount returns the live daemon of user uid that serves the mount of this
// device ("major:minor"). What a daemon calls its mount point is not compared:
// anybody can list a daemon that claims the path of another's mount, and to a
// run it is a path inside. Device and uid are to be the kernel's word, from the
// mount table; no two mounts that are served have the same device.
func (r *Registry) FindMount(ctx context.Context, uid int, device string) (Status, error) {
	return r.find(ctx, device, func(s Status) bool {
		return device != "" && !s.Sandboxed && s.UID == uid && s.Device == device
	})
}

// FindName returns the live daemon of this registry's user that has this name;
// among several the one started last. Those of others don't count, not even
// for root: they can call themselves what they like.
func (r *Registry) FindName(ctx context.Context, name string) (Status, error) {
	return r.find(ctx, name, func(s Status) bool {
		return name != "" && s.UID == r.uid && s.Name == name
	})
}

func (r *Registry) find(ctx context.Context, what string, match func(Status) bool) (Status, error) {
	list, err := r.List(ctx)
	for _, s := range slices.Backward(list) {
		if match(s) {
			return s, nil
		}
	}
	if err != nil {
		return Status{}, err
	}
	return Status{}, fmt.Errorf("%q: %w", what, ErrNotFound)
}

// collector gathers the answers of daemons that are asked at the same time.
type collector struct {
	wait   sync.WaitGroup
	lock   sync.Mutex
	found  []Status
	closed bool // too late
}

// all waits for all answers, for a moment longer than ctx, at whose end the
// daemons count as not answering; then it returns false.
func (c *collector) all(ctx context.Context) bool {
	done := make(chan struct{})
	go func() { c.wait.Wait(); close(done) }()
	select {
	case <-done:
		return true
	case <-ctx.Done():
	}
	select {
	case <-done:
		return true
	case <-time.After(lateTime):
		return false
	}
}

// list starts asking the daemons that have sockets in the folder.
func (f folder) list(ctx context.Context, into *collector) error {
	dir, err := f.open()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	names, err := dir.Readdirnames(4 * maxSockets) // a socket, its description and leftovers
	if err != nil && err != io.EOF {
		dir.Close()
		return err
	}
	slices.Sort(names)
	var asked sync.WaitGroup
	sockets := 0
	for _, name := range names {
		id, isSocket := strings.CutSuffix(name, ".sock")
		young, isYoung := strings.CutSuffix(name, ".new")
		if isYoung {
			id = young
		}
		if !isSocket && !isYoung || sockets == maxSockets {
			continue
		}
		sockets++
		asked.Add(1)
		into.wait.Go(func() {
			defer asked.Done()
			if s, ok := f.ask(ctx, dir, id, name); ok && isSocket {
				into.lock.Lock()
				if !into.closed {
					into.found = append(into.found, s)
				}
				into.lock.Unlock()
			}
		})
	}
	into.wait.Go(func() { asked.Wait(); dir.Close() })
	return nil
}

// ask returns what the daemon behind one socket says of itself, and cleans up
// when there is none.
func (f folder) ask(ctx context.Context, dir *os.File, id, name string) (Status, bool) {
	conn, err := f.connect(ctx, dir, name)
	if errors.Is(err, errGone) {
		f.removeDead(dir, id, name)
		return Status{}, false
	}
	var s Status
	var peer *unix.Ucred
	if err == nil {
		defer conn.Close()
		peer, _ = peerOf(conn)
		if s, err = requestStatus(ctx, conn); err != nil && ctx.Err() == nil {
			if again, gone := f.connect(ctx, dir, name); errors.Is(gone, errGone) {
				f.removeDead(dir, id, name) // it ended while we asked
				return Status{}, false
			} else if gone == nil {
				again.Close()
			}
		}
	} else if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, unix.EAGAIN) {
		return Status{}, false // not a socket, or somebody else's
	}
	if err != nil {
		s = readDescription(dir, id, f.uid)
		s.State = NotAnswering
		s.OpenFiles, s.GuardedBytes, s.DirtyBytes, s.DamagedFiles = 0, 0, 0, 0
	}
	if peer != nil {
		s.PID = int(peer.Pid)
	}
	s.UID = f.uid
	s.Socket = filepath.Join(f.path, name)
	return s, true
}

// connect connects to a socket of an open folder. It holds on to what the name
// stands for before it looks at it: the owner of the folder could otherwise
// put a link there and have root talk to the socket of another service.
// errGone means that nobody listens and nobody ever will again.
func (f folder) connect(ctx context.Context, dir *os.File, name string) (*net.UnixConn, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return nil, errGone
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK || int(st.Uid) != f.uid {
		return nil, &FolderError{filepath.Join(f.path, name), "is not a control socket"}
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d", fd))
	if errors.Is(err, unix.ECONNREFUSED) {
		return nil, errGone
	}
	if err != nil {
		return nil, err
	}
	peer, err := peerOf(conn.(*net.UnixConn))
	if err == nil && int(peer.Uid) != f.uid {
		err = &FolderError{filepath.Join(f.path, name), fmt.Sprintf("is served by user %d", peer.Uid)}
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}

// removeDead removes the files of a daemon that is gone. Ids are random and
// never used again, so that nothing new can have taken the name meanwhile.
func (f folder) removeDead(dir *os.File, id, name string) {
	var st unix.Stat_t
	if unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
		if strings.HasSuffix(name, ".new") && time.Since(time.Unix(st.Mtim.Unix())) < youngAge {
			return
		}
		unix.Unlinkat(int(dir.Fd()), name, 0)
	}
	unix.Unlinkat(int(dir.Fd()), id+".json", 0)
}

// readDescription returns what a daemon said at its start; nothing, if that
// can't be read or is not its user's.
func readDescription(dir *os.File, id string, uid int) Status {
	fd, err := unix.Openat(int(dir.Fd()), id+".json", unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return Status{}
	}
	file := os.NewFile(uintptr(fd), id)
	defer file.Close()
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || int(st.Uid) != uid {
		return Status{}
	}
	text, err := io.ReadAll(io.LimitReader(file, maxStatus+1))
	if err != nil || len(text) > maxStatus {
		return Status{}
	}
	s, err := decodeStatus(text)
	if err != nil {
		return Status{}
	}
	return s
}

func requestStatus(ctx context.Context, conn net.Conn) (Status, error) {
	code, body, err := request(ctx, conn, http.MethodGet, "/v1/status")
	if err != nil {
		return Status{}, err
	}
	if code != http.StatusOK {
		return Status{}, fmt.Errorf("the daemon answers %d", code)
	}
	return decodeStatus(body)
}

// SyncError says that a daemon could not make durable what it had accepted. It goes on serving.
type SyncError struct{ Reason string }

func (e *SyncError) Error() string { return "what was written could not be made durable: " + e.Reason }

// Sync asks the daemon of a mount, as List found it, to make durable all that was accepted before, and waits for that.
func (r *Registry) Sync(ctx context.Context, s Status) error {
	conn, err := r.dial(ctx, s)
	if errors.Is(err, errGone) {
		return ErrNotFound
	}
	if err != nil {
		return err
	}
	defer conn.Close()
	code, body, err := request(ctx, conn, http.MethodPost, "/v1/sync")
	if err != nil {
		return fmt.Errorf("ask the daemon to sync: %w", err)
	}
	if code == http.StatusNoContent {
		return nil
	}
	var why refusal
	if code != http.StatusInternalServerError || json.Unmarshal(body, &why) != nil {
		return fmt.Errorf("ask the daemon to sync: it answers %d", code)
	}
	return &SyncError{why.Error}
}

// request makes the one request of a connection and reads an answer that is
// bounded as a whole. It does without http.Client, which would follow
// redirects, unpack, and log what a hostile daemon sends.
func request(ctx context.Context, conn net.Conn, method, path string) (int, []byte, error) {
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	code, body, err := exchange(conn, method, path)
	if err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	return code, body, err
}

func exchange(conn net.Conn, method, path string) (int, []byte, error) {
	req, err := http.NewRequest(method, "http://encfsrun"+path, nil)
	if err != nil {
		return 0, nil, err
	}
	if err := req.Write(conn); err != nil {
		return 0, nil, err
	}
	response, err := http.ReadResponse(bufio.NewReader(io.LimitReader(conn, maxHeader+maxStatus)), req)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return response.StatusCode, body, err
}

// dial connects to the daemon that List found, checking all anew.
func (r *Registry) dial(ctx context.Context, s Status) (*net.UnixConn, error) {
	f := folder{filepath.Dir(s.Socket), s.UID}
	dir, err := f.open()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errGone
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return f.connect(ctx, dir, filepath.Base(s.Socket))
}
