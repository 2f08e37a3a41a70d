package shell

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"strings"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/fault"
)

// ServeSFTP serves SFTP (draft-ietf-secsh-filexfer-02) as whoever runs this process, until in ends. The server's
// binary is started again as the login to do this, so that the kernel holds every permission.
func ServeSFTP(in io.Reader, out io.WriteCloser) error {
	s, err := sftp.NewServer(struct {
		io.Reader
		io.WriteCloser
	}{in, out})
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.Serve(); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// maxSFTP bounds an SFTP packet, as OpenSSH's server does.
const maxSFTP = 256 << 10

// The SFTP requests that are recorded (draft-ietf-secsh-filexfer-02 section 3), and the flags of an open for writing.
const (
	sftpOpen     = 3
	sftpSetstat  = 9
	sftpRemove   = 13
	sftpMkdir    = 14
	sftpRmdir    = 15
	sftpRename   = 18
	sftpSymlink  = 20
	sftpExtended = 200

	sftpWrites = 0x02 | 0x04 | 0x08 | 0x10 // WRITE, APPEND, CREAT, TRUNC
)

var sftpVerbs = map[byte]string{sftpSetstat: "setstat", sftpRemove: "remove", sftpMkdir: "mkdir", sftpRmdir: "rmdir",
	sftpRename: "rename", sftpSymlink: "symlink"}

// FileAction is what an SFTP request does to a file: opening has a direction, upload or download, and the rest a verb;
// renaming and linking have a target.
type FileAction struct{ Path, Target, Direction, Verb string }

// WatchSFTP copies SFTP requests until from ends. note is told of what is opened or changed before the server sees it,
// because a server that runs as the login could be made to lie; an error of note ends the copying.
func WatchSFTP(to io.Writer, from io.Reader, note func(FileAction) error) error {
	in := bufio.NewReaderSize(from, 64<<10)
	packet := make([]byte, 0, 64<<10)
	for {
		var size [4]byte
		if _, err := io.ReadFull(in, size[:]); err != nil {
			return err
		}
		n := int(binary.BigEndian.Uint32(size[:]))
		if n < 1 || n > maxSFTP {
			return fault.New(fault.Invalid, "an SFTP request of %d bytes", uint32(n)).WithReason("sftp_packet")
		}
		packet = append(packet[:0], size[:]...)
		if cap(packet) < n+4 {
			packet = append(make([]byte, 0, n+4), size[:]...)
		}
		packet = packet[:n+4]
		if _, err := io.ReadFull(in, packet[4:]); err != nil {
			return err
		}
		if a, ok := sftpAction(packet[4:]); ok {
			if err := note(a); err != nil {
				return err
			}
		}
		if _, err := to.Write(packet); err != nil {
			return err
		}
	}
}

// sftpAction reads what a request does to a file; requests that name none, or cannot be read, are nothing.
func sftpAction(packet []byte) (FileAction, bool) {
	var two struct {
		ID       uint32
		Path, To string
		Rest     []byte `ssh:"rest"`
	}
	var one struct {
		ID   uint32
		Path string
		Rest []byte `ssh:"rest"`
	}
	kind, body := packet[0], packet[1:]
	switch kind {
	case sftpOpen:
		if ssh.Unmarshal(body, &one) != nil || len(one.Rest) < 4 {
			return FileAction{}, false
		}
		direction := "download"
		if binary.BigEndian.Uint32(one.Rest)&sftpWrites != 0 {
			direction = "upload"
		}
		return FileAction{Path: one.Path, Direction: direction}, true
	case sftpSetstat, sftpRemove, sftpMkdir, sftpRmdir:
		ok := ssh.Unmarshal(body, &one) == nil
		return FileAction{Path: one.Path, Verb: sftpVerbs[kind]}, ok
	case sftpRename, sftpSymlink:
		ok := ssh.Unmarshal(body, &two) == nil
		return FileAction{Path: two.Path, Target: two.To, Verb: sftpVerbs[kind]}, ok
	case sftpExtended:
		return sftpExtension(body)
	}
	return FileAction{}, false
}

// sftpExtension reads the extensions that change names (OpenSSH PROTOCOL section 4).
func sftpExtension(body []byte) (FileAction, bool) {
	var m struct {
		ID             uint32
		Name, Path, To string
		Rest           []byte `ssh:"rest"`
	}
	if ssh.Unmarshal(body, &m) != nil {
		return FileAction{}, false
	}
	switch m.Name {
	case "posix-rename@openssh.com", "hardlink@openssh.com":
		verb, _, _ := strings.Cut(m.Name, "@")
		return FileAction{Path: m.Path, Target: m.To, Verb: strings.TrimPrefix(verb, "posix-")}, true
	}
	return FileAction{}, false
}
