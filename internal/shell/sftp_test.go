package shell

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/fault"
)

func packet(kind byte, fields any) []byte {
	body := append([]byte{kind}, ssh.Marshal(fields)...)
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

type (
	openFields struct {
		ID    uint32
		Path  string
		Flags uint32
		Attrs uint32
	}
	pathFields struct {
		ID   uint32
		Path string
	}
	pairFields struct {
		ID       uint32
		Path, To string
	}
	extendedFields struct {
		ID             uint32
		Name, Path, To string
	}
)

func TestWatchSFTP(t *testing.T) {
	var in []byte
	for _, p := range [][]byte{
		packet(1, struct{ Version uint32 }{3}), packet(sftpOpen, openFields{1, "r", 1, 0}), packet(sftpOpen, openFields{1, "w", 0x1a, 0}),
		packet(6, struct{ Data string }{strings.Repeat("x", 200_000)}), packet(sftpRemove, pathFields{1, "gone"}),
		packet(sftpRename, pairFields{1, "a", "b"}), packet(sftpExtended, extendedFields{1, "posix-rename@openssh.com", "c", "d"}),
		packet(sftpExtended, extendedFields{1, "statvfs@openssh.com", "e", ""}), packet(sftpOpen, struct{ ID uint32 }{1}),
	} {
		in = append(in, p...)
	}
	var out bytes.Buffer
	var noted []FileAction
	err := WatchSFTP(&out, iotest.OneByteReader(bytes.NewReader(in)), func(a FileAction) error {
		if bytes.HasSuffix(out.Bytes(), []byte(a.Path)) {
			t.Errorf("%s was passed on before it was noted", a.Path)
		}
		noted = append(noted, a)
		return nil
	})
	if !errors.Is(err, io.EOF) || !bytes.Equal(out.Bytes(), in) {
		t.Errorf("%v, %d bytes of %d", err, out.Len(), len(in))
	}
	want := []FileAction{{Path: "r", Direction: "download"}, {Path: "w", Direction: "upload"}, {Path: "gone", Verb: "remove"},
		{Path: "a", Target: "b", Verb: "rename"}, {Path: "c", Target: "d", Verb: "rename"}}
	if !slices.Equal(noted, want) {
		t.Errorf("%+v", noted)
	}
	for _, size := range []uint32{0, maxSFTP + 1, 1<<32 - 1} {
		if err := WatchSFTP(io.Discard, bytes.NewReader(binary.BigEndian.AppendUint32(nil, size)), nil); !fault.Because(err, "sftp_packet") {
			t.Errorf("%d: %v", size, err)
		}
	}
	refuse := errors.New("no")
	out.Reset()
	if err := WatchSFTP(&out, bytes.NewReader(packet(sftpRemove, pathFields{1, "x"})), func(FileAction) error { return refuse }); !errors.Is(err, refuse) || out.Len() > 0 {
		t.Error(err, out.Len())
	}
}

func FuzzWatchSFTP(f *testing.F) {
	f.Add(packet(sftpOpen, openFields{1, "r", 1, 0}))
	f.Add(packet(sftpExtended, extendedFields{1, "hardlink@openssh.com", "c", "d"}))
	f.Fuzz(func(t *testing.T, in []byte) {
		var out bytes.Buffer
		if err := WatchSFTP(&out, bytes.NewReader(in), func(FileAction) error { return nil }); err == nil {
			t.Error("ended without an error")
		}
		if !bytes.HasPrefix(in, out.Bytes()) {
			t.Error("what came out is not what went in")
		}
	})
}
