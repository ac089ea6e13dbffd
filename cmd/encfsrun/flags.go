package main

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

// filled is a flag that must not be empty: an unset variable in a script must not mean "ask somebody else".
type filled struct {
	to   *string
	kind string
}

// filledVar adds one; what to holds already is its default, which --help shows.
func filledVar(flags *pflag.FlagSet, to *string, name, kind, usage string) {
	flags.Var(&filled{to, kind}, name, usage)
}

func (f *filled) String() string {
	if f.to == nil { // the zero value, which pflag compares with
		return ""
	}
	return *f.to
}

func (f *filled) Type() string { return f.kind }

func (f *filled) Set(text string) error {
	if text == "" {
		return errors.New("it is empty")
	}
	*f.to = text
	return nil
}

// filledList is a flag that may be repeated, and never be empty.
type filledList struct {
	to   *[]string
	kind string
}

func filledListVar(flags *pflag.FlagSet, to *[]string, name, kind, usage string) {
	flags.Var(&filledList{to, kind}, name, usage)
}

func (f *filledList) String() string { return "" }

func (f *filledList) Type() string { return f.kind }

func (f *filledList) Set(text string) error {
	if text == "" {
		return errors.New("it is empty")
	}
	*f.to = append(*f.to, text)
	return nil
}

// refuse is a usage error when one of the flags was given: one that is accepted and then ignored would let its user believe in a
// check, or a passkey, that is not there.
func refuse(flags *pflag.FlagSet, reason string, names ...string) error {
	for _, name := range names {
		if flags.Changed(name) {
			return usagef("--%s %s", name, reason)
		}
	}
	return nil
}

// count is a flag of a number above zero.
type count uint32

func (c *count) String() string { return "" }

func (c *count) Type() string { return "N" }

func (c *count) Set(text string) error {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n == 0 {
		return fmt.Errorf("%q is no number of times", text)
	}
	*c = count(n)
	return nil
}

// checkDescriptor refuses a descriptor that nobody opened for us.
func checkDescriptor(flag string, fd int) error {
	if fd < 0 {
		return nil
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
		return usagef("%s %d is no open descriptor", flag, fd)
	}
	return nil
}
