package launcher

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const (
	// invalidID is the uid and gid that the kernel calls "none", (uid_t)-1.
	invalidID = 1<<32 - 1
	// dedicatedBase is where the ids begin that sandboxes started by root are
	// mapped to: the start of a range that nobody allocates from (systemd's
	// UIDS-GIDS table: 0x70000000 is above its containers, and useradd's
	// subordinate ids end at 600,100,000). The launcher's pid, at most 2^22, is
	// added: two runs of root at a time are strangers to each other too.
	dedicatedBase = 0x70000000
	// defaultID is the uid and gid seen inside by a program that root started
	// without --user: an ordinary user's, because programs treat lower ones as
	// the system's, and 65534 as nobody.
	defaultID = 1000
	// defaultName is the user name of an id that /etc/passwd does not know.
	defaultName = "app"
)

var userName = regexp.MustCompile(`^[a-z_][a-z0-9_.-]{0,31}$`)

// resolveIdentity finds who the program will be: the caller for an ordinary
// user; for root, the user that was asked for (or 1000:1000) by name and number
// inside, and on the machine an id that owns nothing and runs nothing else.
func resolveIdentity(user string, host Host) (Identity, error) {
	accounts := readAccounts(filepath.Join(host.Root, "etc/passwd"))
	id := Identity{UID: host.UID, GID: host.GID, HostUID: host.UID, HostGID: host.GID}
	if host.UID == 0 {
		id.UID, id.GID, id.Dedicated = defaultID, defaultID, true
	}
	if user != "" {
		uid, gid, err := parseUser(user, accounts)
		if err != nil {
			return Identity{}, err
		}
		if host.UID != 0 && (uid != host.UID || gid != host.GID) {
			return Identity{}, planErrorf("user %s: only root can choose whom the program runs as", user)
		}
		id.UID, id.GID = uid, gid
	}
	if id.UID == 0 || (id.GID == 0 && id.Dedicated) {
		return Identity{}, planErrorf("user %s: the program can't run as root", user)
	}
	if id.GID == 0 {
		id.GID = id.UID // an ordinary user of group 0: the group is mapped, its number is not shown
	}
	id.Name = defaultName
	if found := slices.IndexFunc(accounts, func(a account) bool { return a.uid == id.UID }); found >= 0 &&
		(user != "" || !id.Dedicated) && userName.MatchString(accounts[found].name) {
		id.Name = accounts[found].name
	}
	id.Home = "/home/" + id.Name
	if id.Dedicated {
		id.HostUID, id.HostGID = dedicatedBase+host.PID, dedicatedBase+host.PID
		for _, file := range []string{"uid_map", "gid_map"} {
			if !mapped(filepath.Join(host.Root, "proc/self", file), dedicatedBase+host.PID) {
				return Identity{}, &MissingError{
					What: fmt.Sprintf("root here is the root of a container in which the id %d does not exist, so the sandbox can't be given one of its own", dedicatedBase+host.PID),
					Mend: "run encfsrun as an ordinary user of this container",
				}
			}
		}
	}
	return id, nil
}

// parseUser reads "uid", "uid:gid" or a name.
func parseUser(user string, accounts []account) (uid, gid int, err error) {
	for _, known := range accounts {
		if known.name == user {
			return known.uid, known.gid, nil
		}
	}
	first, second, two := strings.Cut(user, ":")
	uid, err = parseID(first)
	if err == nil && two {
		gid, err = parseID(second)
	} else if err == nil {
		gid = uid
		if found := slices.IndexFunc(accounts, func(a account) bool { return a.uid == uid }); found >= 0 {
			gid = accounts[found].gid
		}
	}
	if err != nil {
		return 0, 0, planErrorf("user %q is neither in /etc/passwd nor of the form UID or UID:GID", user)
	}
	return uid, gid, nil
}

func parseID(text string) (int, error) {
	number, err := strconv.ParseUint(text, 10, 32)
	if err == nil && number == invalidID {
		err = strconv.ErrRange
	}
	return int(number), err
}

// account is a line of /etc/passwd.
type account struct {
	name     string
	uid, gid int
}

// readAccounts reads passwd(5), skipping what is not of its form. Without the
// file nobody has a name, which is no reason not to run.
func readAccounts(name string) []account {
	file, err := os.Open(name)
	if err != nil {
		return nil
	}
	defer file.Close()
	var accounts []account
	for lines := bufio.NewScanner(file); lines.Scan(); {
		fields := strings.Split(lines.Text(), ":")
		if len(fields) < 4 {
			continue
		}
		uid, err := parseID(fields[2])
		gid, err2 := parseID(fields[3])
		if err == nil && err2 == nil {
			accounts = append(accounts, account{fields[0], uid, gid})
		}
	}
	return accounts
}

// mapped says whether id exists in the user namespace whose uid_map or gid_map
// this is. Where there is no such file there are no user namespaces.
func mapped(name string, id int) bool {
	text, err := os.ReadFile(name)
	if err != nil {
		return true
	}
	for line := range strings.Lines(string(text)) {
		var inside, outside, count int
		if _, err := fmt.Sscan(line, &inside, &outside, &count); err == nil && id >= inside && id-inside < count {
			return true
		}
	}
	return false
}
