// Package control lets the commands of encfsrun find and ask the daemons that
// serve mounts and runs.
//
// Each daemon has one unix socket, <id>.sock, in a folder that is private to
// its user: /run/encfsrun for root, else $XDG_RUNTIME_DIR/encfsrun, else
// /run/user/UID/encfsrun, else /tmp/encfsrun-UID. The folders are the whole registry: what has a socket that
// accepts connections lives, and a socket that refuses them was left by a
// daemon that died. Beside it <id>.json holds what the daemon said of itself
// at its start, for the time when it does not answer.
//
// A daemon speaks HTTP/1.1 with JSON, one request to a connection:
//
//	GET  /v1/status  200 and a [Status]
//	POST /v1/sync    204 when all that was accepted before is durable, else 500
//
// No request ends a daemon: it ends by itself when the kernel lets go of its
// mount, whoever unmounts.
//
// Both sides distrust each other. The daemon drops, at accept, every peer that
// is neither its own user nor root, and bounds the number, size and time of
// requests. The client checks the folder's, the socket's and the peer's owner
// and bounds what it reads, because root asks the daemons of all users.
package control

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Daemon is what serves a mount, seen from its control socket.
type Daemon interface {
	// Status is called for every request and must not block.
	Status() Status
	// Sync returns when all that was accepted before the call is durable. It may take as long as the disk.
	Sync() error
}

// Limits that a hostile or broken client meets. A request is some hundred
// bytes and answered in microseconds.
const (
	maxConnections = 64
	maxHeader      = 4 << 10 // bytes; net/http adds 4 KiB of slack
	requestTimeout = time.Second
	answerTimeout  = 5 * time.Second
	syncTimeout    = 10 * time.Minute // of a disk that is slow and has much to write
)

// Server is the control socket of one daemon.
type Server struct {
	uid      int
	id       string
	dir      *os.File
	listener *net.UnixListener
	once     sync.Once
	closed   error
}

// Listen makes the socket of a daemon in the folder of this user and writes
// down what it is. From its return on the daemon is listed; it answers once
// [Server.Serve] runs. A [*FolderError] says that the folder can't be trusted.
func (r *Registry) Listen(initial Status) (*Server, error) {
	text, err := json.Marshal(initial)
	if err == nil && len(text) > maxStatus {
		err = fmt.Errorf("%d bytes are too many", len(text))
	}
	if err != nil {
		return nil, fmt.Errorf("encode a status: %w", err)
	}
	dir, err := r.own()[0].create()
	if err != nil {
		return nil, err
	}
	var random [8]byte
	rand.Read(random[:])
	s := &Server{uid: r.uid, id: hex.EncodeToString(random[:]), dir: dir}
	if err := s.register(text); err != nil {
		s.Close()
		return nil, fmt.Errorf("make a control socket in %s: %w", dir.Name(), err)
	}
	return s, nil
}

// register makes the files. The socket gets its name when it listens: before,
// it refuses connections as a dead daemon's does, and would be cleaned away.
func (s *Server) register(text []byte) error {
	if err := os.WriteFile(inside(s.dir, s.id+".json"), text, 0o600); err != nil {
		return err
	}
	young := inside(s.dir, s.id+".new")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: young, Net: "unix"})
	if err != nil {
		return err
	}
	s.listener = listener
	listener.SetUnlinkOnClose(false)
	if err := os.Chmod(young, 0o600); err != nil { // the daemon's umask is 0
		return err
	}
	return os.Rename(young, inside(s.dir, s.id+".sock"))
}

// Path is where the socket is.
func (s *Server) Path() string { return s.dir.Name() + "/" + s.id + ".sock" }

// Close stops listening and removes the socket. It may be called more than once.
func (s *Server) Close() error {
	s.once.Do(func() {
		if s.listener != nil {
			s.listener.Close()
		}
		var errs []error
		for _, suffix := range []string{".new", ".sock", ".json"} {
			if err := unix.Unlinkat(int(s.dir.Fd()), s.id+suffix, 0); err != nil && err != unix.ENOENT {
				errs = append(errs, &os.PathError{Op: "remove", Path: s.dir.Name() + "/" + s.id + suffix, Err: err})
			}
		}
		s.closed = errors.Join(append(errs, s.dir.Close())...)
	})
	return s.closed
}

// Serve answers requests until ctx is done or Close is called, and removes the socket. A request
// under way may take another second.
func (s *Server) Serve(ctx context.Context, daemon Daemon) error {
	server := &http.Server{
		Handler:           handler(daemon),
		ReadHeaderTimeout: requestTimeout,
		ReadTimeout:       requestTimeout,
		WriteTimeout:      answerTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          log.New(io.Discard, "", 0), // a client's errors are not the daemon's
	}
	server.SetKeepAlivesEnabled(false)
	stop := context.AfterFunc(ctx, func() {
		late, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if server.Shutdown(late) != nil {
			server.Close()
		}
	})
	defer stop()
	err := server.Serve(&guard{
		UnixListener: s.listener, uid: s.uid,
		places: make(chan struct{}, maxConnections), closed: make(chan struct{}),
	})
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		err = nil
	}
	return errors.Join(err, s.Close())
}

func handler(daemon Daemon) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) {
		answer(w, http.StatusOK, daemon.Status())
	})
	mux.HandleFunc("POST /v1/sync", func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).SetWriteDeadline(time.Now().Add(syncTimeout)) // without it the answer comes too late: the client's loss
		if err := daemon.Sync(); err != nil {
			answer(w, http.StatusInternalServerError, refusal{err.Error()})
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 { // -1 is a body of unknown length
			answer(w, http.StatusRequestEntityTooLarge, refusal{"no request has a body"})
			return
		}
		mux.ServeHTTP(w, r)
	})
}

type refusal struct {
	Error string `json:"error"`
}

func answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(body) // a failed write is the client's loss alone
}

// guard accepts connections of the daemon's user and root only, and at most
// maxConnections at a time; more wait in the kernel's queue. Strangers are
// dropped without taking a place.
type guard struct {
	*net.UnixListener
	uid    int
	places chan struct{}
	once   sync.Once
	closed chan struct{}
}

func (g *guard) Accept() (net.Conn, error) {
	for {
		conn, err := g.AcceptUnix()
		if err != nil {
			return nil, err
		}
		peer, err := peerOf(conn)
		if err != nil || (int(peer.Uid) != g.uid && peer.Uid != 0) {
			conn.Close()
			continue
		}
		select {
		case g.places <- struct{}{}:
			return &guarded{Conn: conn, leave: func() { <-g.places }}, nil
		case <-g.closed:
			conn.Close()
			return nil, net.ErrClosed
		}
	}
}

func (g *guard) Close() error {
	g.once.Do(func() { close(g.closed) })
	return g.UnixListener.Close()
}

// guarded gives its place back when it is closed.
type guarded struct {
	net.Conn
	once  sync.Once
	leave func()
}

func (c *guarded) Close() error {
	defer c.once.Do(c.leave)
	return c.Conn.Close()
}

// peerOf asks the kernel who is at the other end: who connected, or who listens.
func peerOf(conn *net.UnixConn) (*unix.Ucred, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var peer *unix.Ucred
	var inner error
	err = raw.Control(func(fd uintptr) {
		peer, inner = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	return peer, errors.Join(err, inner)
}
