// Package shell starts processes as a login of this host.
//
// A server that runs as root starts them with the login's user id, group id and supplementary groups; one that does
// not serves its own user alone. A process gets an environment made from nothing, no file of the server's, and a
// session of its own, so that it can be ended with all that belongs to it.
package shell

import "strings"

// Login is an account of this host.
type Login struct {
	Name   string
	UID    uint32
	GID    uint32
	Groups []uint32
	Home   string
	Shell  string
}

// Size is a terminal's, in characters and in pixels.
type Size struct{ Columns, Rows, Width, Height uint32 }

// Terminal asks for a pseudo terminal. Modes are encoded as in RFC 4254 section 8; what is not known is passed over.
type Terminal struct {
	Type  string
	Size  Size
	Modes []byte
}

// Spec says what to start. Without a command it is the login shell; a command is handed to the shell with -c.
type Spec struct {
	Login    *Login
	Command  string
	Terminal *Terminal // nil for pipes
	// Env holds further NAME=VALUE pairs. Nothing else of the caller's environment reaches the process.
	Env []string
}

// Exit is how a process ended: by a status, or by a signal, named as in RFC 4254 section 6.10 without SIG.
type Exit struct {
	Status int
	Signal string
	Core   bool
}

// Quote makes a command line of a program and its arguments that a login's shell takes apart again.
func Quote(argv []string) string {
	quoted := make([]string, len(argv))
	for i, a := range argv {
		quoted[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
	}
	return strings.Join(quoted, " ")
}

// The bounds of an accepted variable, so that a client cannot fill a process's arguments.
const maxVariable = 1024

// Accepts reports whether a variable that a client sends may reach a process: the locale, and nothing that a shell
// or a loader acts on.
func Accepts(name, value string) bool {
	if name != "LANG" && !strings.HasPrefix(name, "LC_") {
		return false
	}
	if len(name) > 64 || len(value) > maxVariable {
		return false
	}
	bad := func(r rune) bool { return r <= ' ' || r > '~' || r == '=' }
	return !strings.ContainsFunc(name, bad) && !strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// environment is what every process of a login has.
func environment(s Spec) []string {
	l := s.Login
	path := "/usr/local/bin:/usr/bin:/bin:/usr/games"
	if l.UID == 0 {
		path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	}
	env := []string{"HOME=" + l.Home, "USER=" + l.Name, "LOGNAME=" + l.Name, "SHELL=" + l.Shell, "PATH=" + path}
	if s.Terminal != nil && s.Terminal.Type != "" {
		env = append(env, "TERM="+s.Terminal.Type)
	}
	return append(env, s.Env...)
}
