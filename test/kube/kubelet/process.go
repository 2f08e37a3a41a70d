package main

import (
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"

	"github.com/creack/pty"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
)

// launcher starts processes that end with this one: the kernel sends the signal when the thread ends that started them, so
// one thread is kept for it.
func launcher() func(func() error) error {
	type job struct {
		run  func() error
		done chan error
	}
	jobs := make(chan job)
	go func() {
		runtime.LockOSThread()
		for j := range jobs {
			j.done <- j.run()
		}
	}()
	return func(run func() error) error {
		j := job{run, make(chan error, 1)}
		jobs <- j
		return <-j.done
	}
}

// process is one that runs, with a terminal or with pipes.
type process struct {
	cmd    *exec.Cmd
	tty    *os.File // nil without a terminal
	in     io.WriteCloser
	out    io.Reader
	errs   io.Reader // nil with a terminal
	closes []io.Closer
}

// begin starts a command; dir is where it stands.
func (k *kubelet) begin(args, env []string, dir string, tty bool) (*process, error) {
	p := &process{cmd: exec.Command(args[0], args[1:]...)}
	p.cmd.Dir, p.cmd.Env = dir, append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TERM=xterm"}, env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if tty {
		p.cmd.SysProcAttr.Setsid, p.cmd.SysProcAttr.Setctty = true, true
		main, sub, err := pty.Open()
		if err != nil {
			return nil, err
		}
		p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = sub, sub, sub
		p.tty, p.in, p.out = main, main, main
		err = k.start(p.cmd.Start)
		sub.Close()
		if err != nil {
			main.Close()
			return nil, err
		}
		p.closes = []io.Closer{main}
		return p, nil
	}
	p.cmd.SysProcAttr.Setpgid = true
	return p, p.pipes(k.start)
}

// pipes starts the process with three: os/exec's own would be closed by Wait before the last of them is read.
func (p *process) pipes(start func(func() error) error) error {
	var theirs, ours []*os.File
	var ends [3][2]*os.File
	for i := range ends {
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		if ends[i] = [2]*os.File{r, w}; i == 0 {
			theirs, ours = append(theirs, r), append(ours, w)
		} else {
			theirs, ours = append(theirs, w), append(ours, r)
		}
	}
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = ends[0][0], ends[1][1], ends[2][1]
	p.in, p.out, p.errs = ends[0][1], ends[1][0], ends[2][0]
	err := start(p.cmd.Start)
	for _, f := range theirs {
		f.Close()
	}
	for _, f := range ours {
		if p.closes = append(p.closes, f); err != nil {
			f.Close()
		}
	}
	return err
}

// kill ends the process and what it started.
func (p *process) kill() { _ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) }

// resize sets the terminal's size as often as it changes.
func (p *process) resize(sizes <-chan remotecommand.TerminalSize) {
	for s := range sizes {
		if p.tty != nil {
			_ = pty.Setsize(p.tty, &pty.Winsize{Rows: s.Height, Cols: s.Width})
		}
	}
}

// carry copies what the process says to out and errs until it ended, and gives its end.
func (p *process) carry(out, errs io.Writer) error {
	var both sync.WaitGroup
	one := func(to io.Writer, from io.Reader) {
		if from == nil {
			return
		}
		if to == nil {
			to = io.Discard
		}
		both.Go(func() {
			if _, err := io.Copy(struct{ io.Writer }{to}, struct{ io.Reader }{from}); err != nil && p.tty == nil { // a terminal's end is an error too
				p.kill() // nobody listens
			}
		})
	}
	one(out, p.out)
	one(errs, p.errs)
	both.Wait()
	err := p.cmd.Wait()
	for _, c := range p.closes {
		c.Close()
	}
	return err
}
