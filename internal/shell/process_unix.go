//go:build unix

package shell

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/timerslack"
)

// graceTime is how long a process that is ended has to clean up.
const graceTime = 300 * time.Millisecond

// Process is one that runs. Of one with a terminal, Stdin and Stdout are both the terminal and Stderr is empty.
type Process struct {
	Stdin  io.WriteCloser
	Stdout io.Reader
	Stderr io.Reader

	cmd      *exec.Cmd
	terminal *os.File   // nil for pipes
	ours     []*os.File // this side's ends
	killing  sync.WaitGroup

	mu     sync.Mutex
	killed bool // guarded by mu: by Kill, or there is nothing to kill any more
	gone   bool // guarded by mu: the process is reaped, and its id may be another's
}

// Start starts a process; Wait and then Close must be called.
func Start(s Spec) (*Process, error) {
	cmd := exec.Command(s.Login.Shell)
	cmd.Args = []string{"-" + filepath.Base(s.Login.Shell)}
	if s.Command != "" {
		cmd.Args = []string{filepath.Base(s.Login.Shell), "-c", s.Command}
	}
	cmd.Env, cmd.Dir = environment(s), s.Login.Home
	if !enterable(s.Login) {
		cmd.Dir = "/" // as sshd does; the shell says nothing of it
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: s.Login.UID, Gid: s.Login.GID, Groups: s.Login.Groups}
	}
	p := &Process{cmd: cmd}
	closeInherited()
	theirs, err := p.connect(s)
	if err == nil {
		err = timerslack.With(timerslack.Default, cmd.Start)
	}
	for _, f := range theirs {
		f.Close()
	}
	if err != nil {
		p.closeEnds()
		return nil, fault.New(fault.Unavailable, "the login's shell cannot be started").WithReason("start_failed").Wrapping(err)
	}
	return p, nil
}

// connect makes the terminal or the pipes, and returns the ends that are the process's.
func (p *Process) connect(s Spec) ([]*os.File, error) {
	if s.Terminal != nil {
		return p.openTerminal(s)
	}
	var theirs []*os.File
	pair := func() (r, w *os.File, err error) {
		if r, w, err = os.Pipe(); err == nil {
			p.ours = append(p.ours, r, w)
		}
		return r, w, err
	}
	inR, inW, err1 := pair()
	outR, outW, err2 := pair()
	errR, errW, err3 := pair()
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	p.ours, theirs = []*os.File{inW, outR, errR}, []*os.File{inR, outW, errW}
	p.Stdin, p.Stdout, p.Stderr = inW, outR, errR
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = inR, outW, errW
	return theirs, nil
}

func (p *Process) openTerminal(s Spec) ([]*os.File, error) {
	master, slave, err := pty.Open()
	if err == nil {
		master, err = pollable(master)
	}
	if err != nil {
		return nil, err
	}
	p.ours, p.terminal = []*os.File{master}, master
	theirs := []*os.File{slave}
	if err := resize(master, s.Terminal.Size); err != nil {
		return theirs, err
	}
	setModes(slave, s.Terminal.Modes)
	if os.Geteuid() == 0 {
		// The login opens its own terminal by name; others of the group tty may write to it, as write(1) does.
		gid := int(s.Login.GID)
		mode := os.FileMode(0o600)
		if g, err := user.LookupGroup("tty"); err == nil {
			if n, err := number(g.Gid); err == nil {
				gid, mode = int(n), 0o620
			}
		}
		if err := errors.Join(slave.Chown(int(s.Login.UID), gid), slave.Chmod(mode)); err != nil {
			return theirs, err
		}
	}
	p.cmd.Env = append(p.cmd.Env, "SSH_TTY="+slave.Name())
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = slave, slave, slave
	p.cmd.SysProcAttr.Setctty = true
	p.Stdin, p.Stdout, p.Stderr = master, terminalReader{master}, emptyReader{}
	return theirs, nil
}

type emptyReader struct{}

func (emptyReader) Read([]byte) (int, error) { return 0, io.EOF }

// terminalReader takes the error that Linux gives when nobody holds the other end for the end that it is.
type terminalReader struct{ *os.File }

func (t terminalReader) Read(b []byte) (int, error) {
	n, err := t.File.Read(b)
	if errors.Is(err, syscall.EIO) {
		err = io.EOF
	}
	return n, err
}

// pollable makes a file whose reads end when it is closed, also while somebody else holds the terminal's other end:
// pty opens it for blocking ones.
func pollable(f *os.File) (*os.File, error) {
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

func resize(f *os.File, s Size) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	size := unix.Winsize{Row: clip(s.Rows), Col: clip(s.Columns), Xpixel: clip(s.Width), Ypixel: clip(s.Height)}
	if e := raw.Control(func(fd uintptr) { err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &size) }); e != nil {
		return e
	}
	return err
}

func clip(n uint32) uint16 { return uint16(min(n, 1<<16-1)) }

// Resize tells the terminal of a new size.
func (p *Process) Resize(s Size) error {
	if p.terminal == nil {
		return errors.New("no terminal")
	}
	return resize(p.terminal, s)
}

// Signal sends a signal, named as in RFC 4254 section 6.9, to the process and what it started in its group.
func (p *Process) Signal(name string) error {
	n, ok := signals[name]
	if !ok {
		return errors.New("unknown signal")
	}
	return p.signal(n)
}

func (p *Process) signal(n syscall.Signal) error {
	fg, _ := foreground(p.terminal)
	return p.signalGroups(n, fg)
}

// signalGroups signals the process's group and, where it is of the same session, the terminal's foreground group. The
// process's id is its session's, and nobody else's as long as it is not reaped.
func (p *Process) signalGroups(n syscall.Signal, fg int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone {
		return os.ErrProcessDone
	}
	pid := p.cmd.Process.Pid
	if sid, err := unix.Getsid(fg); fg > 1 && fg != pid && err == nil && sid == pid {
		_ = syscall.Kill(-fg, n)
	}
	return syscall.Kill(-pid, n)
}

// Kill ends the process, its group and the terminal's foreground group: they are told to hang up, and killed a moment
// later. Programs that took themselves out of these stay, as they do with sshd.
func (p *Process) Kill() {
	p.mu.Lock()
	again := p.killed
	p.killed = true
	if !again {
		p.killing.Add(1)
	}
	p.mu.Unlock()
	if again {
		return
	}
	fg, _ := foreground(p.terminal) // it is not to be had any more once the shell has ended
	_ = p.signalGroups(syscall.SIGHUP, fg)
	_ = p.signalGroups(syscall.SIGCONT, fg)
	go func() {
		defer p.killing.Done()
		time.Sleep(graceTime)
		_ = p.signalGroups(syscall.SIGKILL, fg)
		p.closeEnds()
	}()
}

// Wait waits for the process to end. Its output can be read further, and what it left behind be killed, until Close.
func (p *Process) Wait() Exit {
	if e, ok := waitUnreaped(p.cmd.Process.Pid); ok {
		return e
	}
	return p.reap()
}

// reap gives the process's id back to the system. Nothing is signalled from then on: the id may be a stranger's.
func (p *Process) reap() Exit {
	err := p.cmd.Wait()
	p.mu.Lock()
	p.gone = true
	p.mu.Unlock()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		return Exit{Status: 255}
	}
	ws, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || !ws.Signaled() {
		return Exit{Status: p.cmd.ProcessState.ExitCode()}
	}
	return bySignal(ws.Signal(), ws.CoreDump())
}

func bySignal(n syscall.Signal, core bool) Exit {
	return Exit{Status: 128 + int(n), Signal: signalName(n), Core: core}
}

// Close gives up this side's ends and the process's id, after Wait has returned. What was started in the background
// lives on unless Kill was called.
func (p *Process) Close() {
	p.mu.Lock()
	p.killed = true
	p.mu.Unlock()
	p.killing.Wait()
	p.closeEnds()
	p.mu.Lock()
	gone := p.gone
	p.gone = true
	p.mu.Unlock()
	if !gone {
		_ = p.cmd.Wait()
	}
}

func (p *Process) closeEnds() {
	for _, f := range p.ours {
		f.Close()
	}
}

var signals = map[string]syscall.Signal{
	"ABRT": syscall.SIGABRT, "ALRM": syscall.SIGALRM, "FPE": syscall.SIGFPE, "HUP": syscall.SIGHUP,
	"ILL": syscall.SIGILL, "INT": syscall.SIGINT, "KILL": syscall.SIGKILL, "PIPE": syscall.SIGPIPE,
	"QUIT": syscall.SIGQUIT, "SEGV": syscall.SIGSEGV, "TERM": syscall.SIGTERM, "USR1": syscall.SIGUSR1,
	"USR2": syscall.SIGUSR2,
}

func signalName(n syscall.Signal) string {
	for name, s := range signals {
		if s == n {
			return name
		}
	}
	return "SIG" + n.String() + "@sallyport"
}

// enterable reports whether the home is a directory; that the login may enter it the kernel says at the start.
func enterable(l *Login) bool {
	st, err := os.Stat(l.Home)
	return err == nil && st.IsDir() && mayEnter(st, l)
}

// mayEnter judges by owner, group and mode, which is what a server that runs as root has to go by.
func mayEnter(st os.FileInfo, l *Login) bool {
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok || l.UID == 0 {
		return true
	}
	if sys.Uid == l.UID {
		return st.Mode()&0o100 != 0
	}
	if sys.Gid == l.GID {
		return st.Mode()&0o010 != 0
	}
	for _, g := range l.Groups {
		if g == sys.Gid {
			return st.Mode()&0o010 != 0
		}
	}
	return st.Mode()&0o001 != 0
}
