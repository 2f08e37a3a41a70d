//go:build !windows

package platform

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/google/go-tpm/tpm2/transport"

	"github.com/sallyport/sallyport/internal/hwkey"
)

// DefaultPath is the kernel's resource manager, which many processes may use at once.
const DefaultPath = "/dev/tpmrm0"

// maxResponse is the longest answer of a TPM (the kernel's TPM_BUFSIZE).
const maxResponse = 4096

// dial opens the TPM at path: a device file, or an emulator's socket.
func dial(path string) (transport.TPMCloser, error) {
	if path == "" {
		path = DefaultPath
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, openFault(path, err)
	}
	var open func() (transport.TPMCloser, error)
	switch {
	case info.Mode()&os.ModeSocket != 0:
		open = func() (transport.TPMCloser, error) { return dialSocket(path) }
	case info.Mode()&os.ModeDevice != 0:
		open = func() (transport.TPMCloser, error) { return openFile(path) }
	default:
		return nil, hwkey.ErrOpenTPM.WithCause("%s is neither a device nor a socket", path)
	}
	for wait, spent := 5*time.Millisecond, time.Duration(0); ; wait = min(2*wait, time.Second) {
		t, err := open()
		if err == nil {
			return t, nil
		}
		if spent += wait; spent > Patience || !busy(err) {
			return nil, openFault(path, err)
		}
		time.Sleep(wait)
	}
}

// busy reports whether the TPM may be had a little later: /dev/tpm0 is open elsewhere, or an emulator's backlog full.
func busy(err error) bool {
	return errors.Is(err, syscall.EBUSY) || errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR)
}

func dialSocket(path string) (transport.TPMCloser, error) {
	conn, err := net.DialTimeout("unix", path, Patience)
	if err != nil {
		return nil, err
	}
	return socket{conn}, nil
}

// openFile takes a descriptor without O_NONBLOCK, so that reads wait for the answer.
func openFile(path string) (transport.TPMCloser, error) {
	fd, err := syscall.Open(path, syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return file{os.NewFile(uintptr(fd), path)}, nil
}

// openFault says what stands in the way of the TPM and what to type.
func openFault(path string, err error) error {
	f := hwkey.ErrOpenTPM.Wrapping(err)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return f.WithCause("%s belongs to the group tss, and this process is not in it", path).
			WithFix("sudo usermod -aG tss $USER, then log in to this machine again")
	case errors.Is(err, fs.ErrNotExist):
		return f.WithCause("there is no %s: the machine has no TPM, or its firmware has it switched off", path).
			WithFix("switch the TPM on in the firmware's setup (often called fTPM, PTT or Security Chip), then: tsh device doctor")
	case errors.Is(err, syscall.EBUSY):
		return f.WithCause("%s is in use by another program", path).WithFix("sudo fuser -v %s   (and end that program)", path)
	}
	return f.WithCause("%s: %v", path, err)
}

// file is a TPM device file: one write a command, one read an answer.
type file struct{ *os.File }

func (f file) Send(command []byte) ([]byte, error) {
	if _, err := f.Write(command); err != nil {
		return nil, err
	}
	b := make([]byte, maxResponse)
	n, err := f.Read(b)
	return b[:n], err
}

// socket is one connection to an emulator, which serves one client at a time: others wait in its backlog.
type socket struct{ net.Conn }

func (s socket) Send(command []byte) ([]byte, error) {
	if err := s.SetDeadline(time.Now().Add(2 * Patience)); err != nil {
		return nil, err
	}
	if _, err := s.Write(command); err != nil {
		return nil, err
	}
	head := make([]byte, 10)
	if _, err := io.ReadFull(s, head); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(head[2:])
	if size < 10 || size > maxResponse {
		return nil, fmt.Errorf("TPM answer of %d bytes", size)
	}
	b := append(head, make([]byte, size-10)...)
	_, err := io.ReadFull(s, b[10:])
	return b, err
}

// EndorsementAuth is empty: these platforms keep no endorsement password for us to read.
func EndorsementAuth() ([]byte, error) { return nil, nil }

// KeepsEndorsementAuth says whether the platform keeps the endorsement password, for administrators to use.
const KeepsEndorsementAuth = false

// EndorsementRefused is the fault of an endorsement password that is not the one that was given.
func EndorsementRefused(err error) error { return hwkey.ErrEndorsement.Wrapping(err) }

// ForAdministrators is never so: who may open the TPM may activate.
func ForAdministrators(error) bool { return false }
