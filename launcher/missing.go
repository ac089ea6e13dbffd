package launcher

// MissingError says that the machine lacks something a mount or a run needs.
// The caller shows Mend after the message; it maps to exit code 7.
type MissingError struct {
	What string // what is missing, as one sentence: "fusermount3 is not installed"
	Mend string // the command or setting that mends it: "apt-get install fuse3"
}

func (e *MissingError) Error() string { return e.What }
