// Package shell starts processes as a login of this host.
//
// A server that runs as root starts them with the login's user id, group id and supplementary groups; one that does
// not serves its own user alone. A process gets an environment made from nothing, no file of the server's, and a
// session of its own, so that it can be ended with all that belongs to it.
package shell

import (
	"io"

	"github.com/sallyport/sallyport/internal/fault"
)

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

// Lookup finds a login. That it does not exist, or that this server may not become it, is a fault.
func Lookup(name string) (*Login, error) { return nil, fault.New(fault.Unsupported, "no logins here") }

// Start starts a process. Wait must be called.
func Start(s Spec) (*Process, error) { return nil, fault.New(fault.Unsupported, "no logins here") }

// Process is one that runs. Of one with a terminal, Stdin and Stdout are both the terminal and Stderr is empty.
type Process struct {
	Stdin  io.WriteCloser
	Stdout io.Reader
	Stderr io.Reader
}

// ServeSFTP serves SFTP (draft-ietf-secsh-filexfer-02) as whoever runs this process, until in ends. The server's
// binary is started again as the login to do this, so that the kernel holds every permission.
func ServeSFTP(in io.Reader, out io.WriteCloser) error {
	return fault.New(fault.Unsupported, "no SFTP here")
}
