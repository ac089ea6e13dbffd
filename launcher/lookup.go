package launcher

import (
	"bytes"
	"debug/elf"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// lookUp finds the program's file as execvp(3) does: a name with a slash as it
// is, any other in the directories of PATH. The error is an *ExecError.
func lookUp(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		return name, executable(name, name)
	}
	var denied error
	for _, dir := range filepath.SplitList(searchPath(env)) {
		if dir == "" {
			dir = "."
		}
		candidate := dir + "/" + name
		err := executable(name, candidate)
		if err == nil {
			return candidate, nil
		}
		if !err.(*ExecError).NotFound && denied == nil {
			denied = err
		}
	}
	if denied != nil {
		return "", denied
	}
	return "", &ExecError{Program: name, NotFound: true, Errno: unix.ENOENT}
}

func searchPath(env []string) string {
	for _, entry := range env {
		if value, ok := strings.CutPrefix(entry, "PATH="); ok {
			return value
		}
	}
	return ""
}

// executable says why file, which is what name led to, can't be executed by
// the calling thread. The error is an *ExecError.
func executable(name, file string) error {
	var stat unix.Stat_t
	err := unix.Stat(file, &stat)
	if err == nil && stat.Mode&unix.S_IFMT != unix.S_IFREG {
		err = unix.EACCES
	}
	if err == nil {
		err = unix.Faccessat(unix.AT_FDCWD, file, unix.X_OK, unix.AT_EACCESS)
	}
	if err == nil {
		return nil
	}
	errno, _ := err.(syscall.Errno)
	return &ExecError{Program: name, NotFound: errno == unix.ENOENT || errno == unix.ENOTDIR, Errno: errno}
}

// explainExec turns a failed execve of a file that is there into the reason.
// The kernel says ENOENT or EACCES also of a script's interpreter and of a
// binary's loader, without naming them.
func explainExec(name, file string, errno syscall.Errno) error {
	failed := &ExecError{Program: name, Errno: errno}
	if errno != unix.ENOENT && errno != unix.EACCES && errno != unix.ENOTDIR {
		return failed
	}
	interpreter := interpreterOf(file)
	if interpreter == "" {
		return failed
	}
	if err := executable(interpreter, interpreter); err != nil {
		failed.Interpreter = interpreter
		failed.NotFound = err.(*ExecError).NotFound
	}
	return failed
}

// interpreterOf returns the program that the kernel would start for file: from
// the first line of a script (execve(2) reads 256 bytes), or a binary's loader.
func interpreterOf(file string) string {
	in, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer in.Close()
	head := make([]byte, 256)
	n, err := io.ReadFull(in, head)
	if err != nil && err != io.ErrUnexpectedEOF {
		return ""
	}
	if line, ok := bytes.CutPrefix(head[:n], []byte("#!")); ok {
		line, _, _ = bytes.Cut(line, []byte("\n"))
		if fields := strings.Fields(string(line)); len(fields) > 0 {
			return fields[0]
		}
		return ""
	}
	binary, err := elf.NewFile(in)
	if err != nil {
		return ""
	}
	for _, part := range binary.Progs {
		if part.Type == elf.PT_INTERP && part.Filesz < 4096 {
			loader, err := io.ReadAll(part.Open())
			if err != nil {
				return ""
			}
			return string(bytes.TrimRight(loader, "\x00"))
		}
	}
	return ""
}
