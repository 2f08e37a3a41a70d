package elevation

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"

	"github.com/sallyport/sallyport/internal/fault"
)

// How long each thing may take: a person's answer to UAC (which gives up by itself after two minutes), the copy's start
// and its connection, and the exchange, in which a slow TPM may make an RSA primary.
const (
	consentTime  = 3 * time.Minute
	startTime    = 30 * time.Second
	exchangeTime = 2 * time.Minute
)

const prefix = `\\.\pipe\sallyport-activate-`

// process is a copy that was started; its handle is closed by who asked.
type process struct {
	handle windows.Handle
	id     uint32
}

// launch starts the copy; tests put others in its place.
var launch = shellExecute

// Activate has an elevated copy of this program answer a request. ErrRefused when the person did not consent.
func Activate(q Request) ([]byte, error) {
	name, err := randomName()
	if err != nil {
		return nil, err
	}
	pipe, err := createPipe(prefix + name)
	if err != nil {
		return nil, ErrElevation.Wrapping(err)
	}
	closePipe := func() error { return windows.CloseHandle(pipe) }
	defer func() { _ = closePipe() }()
	child, err := consented(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = windows.CloseHandle(child.handle) }()
	if err := connect(pipe, child); err != nil {
		return nil, ErrElevation.Wrapping(err).WithCause("%v", err)
	}
	var id uint32
	if err := windows.GetNamedPipeClientProcessId(pipe, &id); err != nil || id != child.id {
		return nil, ErrElevation.WithCause("process %d connected, not the one that was started", id)
	}
	f := os.NewFile(uintptr(pipe), "activation")
	closePipe = f.Close
	if err := f.SetDeadline(time.Now().Add(exchangeTime)); err != nil {
		return nil, ErrElevation.Wrapping(err)
	}
	var secret []byte
	if err = send(f, q); err == nil {
		secret, err = readAnswer(f)
	}
	var told *fault.Error
	if err != nil && !errors.As(err, &told) {
		return nil, ErrElevation.Wrapping(err).WithCause("it gave no answer: %v", err)
	}
	return secret, err
}

// Serve answers one request on the pipe that the process parent made, and ends.
func Serve(name string, parent uint32, activate func(Request) ([]byte, error)) error {
	if raw, err := hex.DecodeString(name); err != nil || len(raw) != 16 || hex.EncodeToString(raw) != name {
		return ErrElevation.WithCause("%q is no name of a pipe", cut(name))
	}
	path, err := windows.UTF16PtrFromString(prefix + name)
	if err != nil {
		return err
	}
	// Who made the pipe must not act as this process: SECURITY_IDENTIFICATION.
	pipe, err := windows.CreateFile(path, windows.GENERIC_READ|windows.GENERIC_WRITE, 0, nil, windows.OPEN_EXISTING,
		windows.FILE_FLAG_OVERLAPPED|windows.SECURITY_SQOS_PRESENT|windows.SECURITY_IDENTIFICATION, 0)
	if err != nil {
		return ErrElevation.Wrapping(err)
	}
	f := os.NewFile(uintptr(pipe), "activation")
	defer func() { _ = f.Close() }()
	if err := sameProgram(pipe, parent); err != nil {
		return err
	}
	if err := f.SetDeadline(time.Now().Add(exchangeTime)); err != nil {
		return ErrElevation.Wrapping(err)
	}
	q, err := readRequest(f)
	if err != nil {
		return ErrElevation.Wrapping(err)
	}
	return send(f, told(activate(q)))
}

// sameProgram checks that the process that made the pipe is the one that started this one, and runs this program.
func sameProgram(pipe windows.Handle, parent uint32) error {
	var id uint32
	if err := windows.GetNamedPipeServerProcessId(pipe, &id); err != nil || id != parent {
		return ErrElevation.WithCause("process %d made the pipe, not the one that asked", id)
	}
	theirs, err := image(id)
	if err != nil {
		return ErrElevation.Wrapping(err).WithCause("the program of process %d cannot be told", id)
	}
	ours, err := image(windows.GetCurrentProcessId())
	if err != nil {
		return ErrElevation.Wrapping(err)
	}
	if !strings.EqualFold(ours, theirs) {
		return ErrElevation.WithCause("%s asked, this is %s", theirs, ours)
	}
	return nil
}

// processIDInformation is SYSTEM_PROCESS_ID_INFORMATION, the answer of NtQuerySystemInformation to the class of its name.
type processIDInformation struct {
	id    uintptr
	image windows.NTUnicodeString
}

const systemProcessIDInformation = 88

// image is the path of the program that a process runs, by the kernel's name for it. The process need not be opened:
// an administrator's account has no right to a process of another person's.
func image(id uint32) (string, error) {
	buf := make([]uint16, 32<<10-1)
	info := processIDInformation{id: uintptr(id), image: windows.NTUnicodeString{MaximumLength: uint16(2 * len(buf)), Buffer: &buf[0]}}
	if err := windows.NtQuerySystemInformation(systemProcessIDInformation, unsafe.Pointer(&info), uint32(unsafe.Sizeof(info)), nil); err != nil {
		return opened(id)
	}
	return windows.UTF16ToString(buf[:min(int(info.image.Length)/2, len(buf))]), nil
}

// opened is image by a handle, where the system does not know that class.
func opened(id uint32) (string, error) {
	p, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION, false, id)
	if err != nil {
		return "", fmt.Errorf("open process: %w", err)
	}
	defer func() { _ = windows.CloseHandle(p) }()
	buf := make([]uint16, 32<<10)
	n := uint32(len(buf))
	if err := windows.QueryFullProcessImageName(p, windows.PROCESS_NAME_NATIVE, &buf[0], &n); err != nil {
		return "", fmt.Errorf("name of a process: %w", err)
	}
	return windows.UTF16ToString(buf[:n]), nil
}

func randomName() (string, error) {
	b := make([]byte, 16)
	if _, err := rand.Read(b); err != nil {
		return "", err
	}
	return hex.EncodeToString(b), nil
}

// createPipe makes the first and only instance of a pipe: for this person, and for administrators and the system, as
// one of whom the copy may run.
func createPipe(path string) (windows.Handle, error) {
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return 0, fmt.Errorf("who runs this: %w", err)
	}
	sd, err := windows.SecurityDescriptorFromString("D:P(A;;GRGW;;;" + user.User.Sid.String() + ")(A;;GRGW;;;BA)(A;;GRGW;;;SY)")
	if err != nil {
		return 0, fmt.Errorf("rights of the pipe: %w", err)
	}
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return 0, err
	}
	sa := windows.SecurityAttributes{SecurityDescriptor: sd}
	sa.Length = uint32(unsafe.Sizeof(sa))
	pipe, err := windows.CreateNamedPipe(name, windows.PIPE_ACCESS_DUPLEX|windows.FILE_FLAG_FIRST_PIPE_INSTANCE|windows.FILE_FLAG_OVERLAPPED,
		windows.PIPE_TYPE_BYTE|windows.PIPE_REJECT_REMOTE_CLIENTS, 1, maxMessage, maxMessage, 0, &sa)
	if err != nil {
		return 0, err
	}
	var instances uint32 // wine takes no notice of the flag
	if err := windows.GetNamedPipeHandleState(pipe, nil, &instances, nil, nil, nil, 0); err != nil || instances != 1 {
		return 0, errors.Join(fmt.Errorf("the pipe is somebody else's"), err, windows.CloseHandle(pipe))
	}
	return pipe, nil
}

// consented starts the copy and waits for the person's answer.
func consented(name string) (process, error) {
	type started struct {
		process
		err error
	}
	done := make(chan started, 1)
	go func() { // ends with UAC's own question; this program ends anyhow when nobody answers
		p, err := launch(name)
		done <- started{p, err}
	}()
	select {
	case s := <-done:
		switch {
		case errors.Is(s.err, windows.ERROR_CANCELLED), errors.Is(s.err, windows.ERROR_ACCESS_DENIED):
			return process{}, ErrRefused.Wrapping(s.err)
		case s.err != nil:
			return process{}, ErrElevation.Wrapping(s.err).WithCause("%v", s.err)
		}
		return s.process, nil
	case <-time.After(consentTime):
		return process{}, ErrRefused.WithCause("nobody answered in %s", consentTime)
	}
}

// connect waits until the copy has connected, has ended, or its time is over.
func connect(pipe windows.Handle, child process) error {
	event, err := windows.CreateEvent(nil, 1, 0, nil)
	if err != nil {
		return err
	}
	defer func() { _ = windows.CloseHandle(event) }()
	o := &windows.Overlapped{HEvent: event}
	err = windows.ConnectNamedPipe(pipe, o)
	if errors.Is(err, windows.ERROR_PIPE_CONNECTED) || err == nil {
		return nil
	}
	if !errors.Is(err, windows.ERROR_IO_PENDING) {
		return fmt.Errorf("wait for the program: %w", err)
	}
	which, err := windows.WaitForMultipleObjects([]windows.Handle{event, child.handle}, false, uint32(startTime.Milliseconds()))
	if err == nil && which == windows.WAIT_OBJECT_0 {
		return nil
	}
	var n uint32 // the kernel writes to o until the wait is over
	_ = windows.CancelIoEx(pipe, o)
	_ = windows.GetOverlappedResult(pipe, o, &n, true)
	runtime.KeepAlive(o)
	if err == nil && which == windows.WAIT_OBJECT_0+1 {
		return fmt.Errorf("it ended without a word")
	}
	return fmt.Errorf("it did not connect in %s", startTime)
}

// execute is SHELLEXECUTEINFOW of shellapi.h.
type execute struct {
	size       uint32
	mask       uint32
	window     windows.Handle
	verb       *uint16
	file       *uint16
	parameters *uint16
	directory  *uint16
	show       int32
	_          [6]uintptr // instance, id list, class, its key, hot key, icon
	process    windows.Handle
}

var shellExecuteEx = windows.NewLazySystemDLL("shell32.dll").NewProc("ShellExecuteExW")

// shellExecute starts this program through UAC, without a window, in the system's directory, so that no file of the
// caller's is found before the system's.
func shellExecute(name string) (process, error) {
	runtime.LockOSThread() // COM belongs to a thread
	defer runtime.UnlockOSThread()
	if err := windows.CoInitializeEx(0, windows.COINIT_APARTMENTTHREADED|windows.COINIT_DISABLE_OLE1DDE); err == nil {
		defer windows.CoUninitialize()
	}
	self, err := os.Executable()
	if err != nil {
		return process{}, err
	}
	system, err := windows.GetSystemDirectory()
	if err != nil {
		return process{}, err
	}
	const noCloseProcess, noAsync, flagNoUI = 0x40, 0x100, 0x400
	info := execute{mask: noCloseProcess | noAsync | flagNoUI, show: windows.SW_HIDE}
	info.size = uint32(unsafe.Sizeof(info))
	for _, s := range []struct {
		to   **uint16
		text string
	}{{&info.verb, "runas"}, {&info.file, self}, {&info.directory, system}, {&info.parameters, strings.Join(Arguments(name, uint32(os.Getpid())), " ")}} {
		if *s.to, err = windows.UTF16PtrFromString(s.text); err != nil {
			return process{}, err
		}
	}
	if ok, _, err := shellExecuteEx.Call(uintptr(unsafe.Pointer(&info))); ok == 0 {
		return process{}, err
	}
	if info.process == 0 {
		return process{}, fmt.Errorf("no process was started")
	}
	id, err := windows.GetProcessId(info.process)
	if err != nil {
		return process{}, errors.Join(err, windows.CloseHandle(info.process))
	}
	return process{info.process, id}, nil
}
