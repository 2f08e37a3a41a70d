//go:build unix

package shell

import (
	"bufio"
	"errors"
	"os"
	"os/user"
	"strconv"
	"strings"

	"github.com/sallyport/sallyport/internal/fault"
)

// passwd is where login shells are; os/user does not tell them.
var passwd = "/etc/passwd"

// Lookup finds a login. That it does not exist, or that this server may not become it, is a fault.
func Lookup(name string) (*Login, error) {
	u, err := user.Lookup(name)
	if err != nil {
		var unknown user.UnknownUserError
		if errors.As(err, &unknown) {
			return nil, fault.New(fault.NotFound, "login %q does not exist on this host", name).WithReason("no_such_login")
		}
		return nil, fault.New(fault.Unavailable, "login %q cannot be looked up", name).WithReason("login_lookup").Wrapping(err)
	}
	l := &Login{Name: u.Username, Home: u.HomeDir}
	if l.UID, err = number(u.Uid); err == nil {
		l.GID, err = number(u.Gid)
	}
	if err != nil {
		return nil, fault.New(fault.Unavailable, "login %q has no number", name).WithReason("login_lookup").Wrapping(err)
	}
	if euid := os.Geteuid(); euid != 0 && l.UID != uint32(euid) {
		return nil, fault.New(fault.Denied, "this node may not become %q", name).WithReason("node_not_root").
			WithCause("it runs as user id %d and serves that login alone", euid).
			WithFix("ask an administrator to run the node as root")
	}
	ids, err := u.GroupIds()
	if err != nil {
		return nil, fault.New(fault.Unavailable, "the groups of %q cannot be looked up", name).WithReason("login_lookup").Wrapping(err)
	}
	for _, s := range ids {
		if g, err := number(s); err == nil {
			l.Groups = append(l.Groups, g)
		}
	}
	l.Shell = shellOf(name)
	return l, nil
}

func number(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err
}

// shellOf is the login shell that /etc/passwd names, else /bin/sh, as login(1) has it.
func shellOf(name string) string {
	f, err := os.Open(passwd)
	if err != nil {
		return "/bin/sh"
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Split(lines.Text(), ":")
		if len(fields) == 7 && fields[0] == name && strings.HasPrefix(fields[6], "/") {
			return fields[6]
		}
	}
	return "/bin/sh"
}
