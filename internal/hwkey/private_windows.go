package hwkey

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/windows"
)

// alone are the rights of what is made here: everything for the owner, nothing for anybody else, nothing inherited
// (the P of SDDL, MS-DTYP 2.5.1.1). A directory hands them on.
func alone(flags string) (*windows.SecurityAttributes, error) {
	me, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return nil, fmt.Errorf("who runs this: %w", err)
	}
	sd, err := windows.SecurityDescriptorFromString("D:P(A;" + flags + ";FA;;;" + me.User.Sid.String() + ")")
	if err != nil {
		return nil, fmt.Errorf("rights of a file: %w", err)
	}
	sa := &windows.SecurityAttributes{SecurityDescriptor: sd}
	sa.Length = uint32(unsafe.Sizeof(*sa))
	return sa, nil
}

// long is a path that Windows takes at any length.
func long(path string) (*uint16, error) {
	if len(path) >= 200 && filepath.IsAbs(path) && !strings.HasPrefix(path, `\\`) {
		path = `\\?\` + filepath.Clean(path)
	}
	return windows.UTF16PtrFromString(path)
}

// MakeDir makes a directory for its owner alone, and those above it that are not there.
func MakeDir(path string) error {
	if info, err := os.Stat(path); err == nil {
		if !info.IsDir() {
			return &fs.PathError{Op: "mkdir", Path: path, Err: windows.ERROR_DIRECTORY}
		}
		return nil
	}
	if parent := filepath.Dir(path); parent != path {
		if err := MakeDir(parent); err != nil {
			return err
		}
	}
	sa, err := alone("OICI")
	if err != nil {
		return err
	}
	name, err := long(path)
	if err != nil {
		return err
	}
	if err := windows.CreateDirectory(name, sa); err != nil && !errors.Is(err, fs.ErrExist) {
		return &fs.PathError{Op: "mkdir", Path: path, Err: err}
	}
	return nil
}

// CreateTemp makes a file for its owner alone.
func CreateTemp(dir string) (*os.File, error) {
	sa, err := alone("")
	if err != nil {
		return nil, err
	}
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, ".new-"+hex.EncodeToString(b[:]))
	name, err := long(path)
	if err != nil {
		return nil, err
	}
	h, err := windows.CreateFile(name, windows.GENERIC_READ|windows.GENERIC_WRITE, 0, sa, windows.CREATE_NEW, windows.FILE_ATTRIBUTE_NORMAL, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "create", Path: path, Err: err}
	}
	return os.NewFile(uintptr(h), path), nil
}

// exposed reads the file's list of rights: whoever of others is let read makes it so, and so does no list at all.
func exposed(path string, _ fs.FileInfo) (string, bool) {
	fix := fmt.Sprintf(`icacls "%s" /inheritance:r /grant:r "%%USERNAME%%:F"`, path)
	f, err := os.Open(path) // by name, Windows would not take a long one
	if err != nil {
		return fix, !errors.Is(err, fs.ErrPermission) // what is not to be read says so itself
	}
	defer func() { _ = f.Close() }()
	sd, err := windows.GetSecurityInfo(windows.Handle(f.Fd()), windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION)
	if err != nil {
		return fix, true
	}
	acl, _, err := sd.DACL()
	if err != nil || acl == nil {
		return fix, true
	}
	me, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return fix, true
	}
	const reads = windows.FILE_READ_DATA | windows.GENERIC_READ | windows.GENERIC_ALL
	for i := range acl.AceCount {
		var ace *windows.ACCESS_ALLOWED_ACE
		if err := windows.GetAce(acl, uint32(i), &ace); err != nil {
			return fix, true
		}
		if ace.Header.AceType == windows.ACCESS_DENIED_ACE_TYPE || ace.Header.AceFlags&windows.INHERIT_ONLY_ACE != 0 {
			continue
		}
		who := (*windows.SID)(unsafe.Pointer(&ace.SidStart))
		known := ace.Header.AceType == windows.ACCESS_ALLOWED_ACE_TYPE && (who.Equals(me.User.Sid) ||
			who.IsWellKnown(windows.WinLocalSystemSid) || who.IsWellKnown(windows.WinBuiltinAdministratorsSid))
		if ace.Mask&reads != 0 && !known {
			return fix, true
		}
	}
	return fix, false
}
