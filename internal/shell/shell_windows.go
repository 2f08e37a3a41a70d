package shell

import (
	"errors"
	"io"
	"net"

	"github.com/sallyport/sallyport/internal/fault"
)

var errWindows = fault.New(fault.Unsupported, "a node does not run on Windows").WithReason("platform")

// Lookup finds no login.
func Lookup(string) (*Login, error) { return nil, errWindows }

// Process is never made.
type Process struct {
	Stdin  io.WriteCloser
	Stdout io.Reader
	Stderr io.Reader
}

// Start starts nothing.
func Start(Spec) (*Process, error) { return nil, errWindows }

// Resize does nothing.
func (*Process) Resize(Size) error { return errors.ErrUnsupported }

// Signal does nothing.
func (*Process) Signal(string) error { return errors.ErrUnsupported }

// Kill does nothing.
func (*Process) Kill() {}

// Wait does nothing.
func (*Process) Wait() Exit { return Exit{Status: 255} }

// Close does nothing.
func (*Process) Close() {}

// Socket is never made.
type Socket struct {
	net.Listener
	Path string
}

// NewSocket makes none.
func NewSocket(*Login) (*Socket, error) { return nil, errWindows }
