package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"sync"
	"time"

	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
)

// Bounds of a stream, as kubelets have them.
const (
	idle     = 4 * time.Hour
	creation = 30 * time.Second
)

// handler serves a kubelet's paths (k8s.io/kubernetes, pkg/kubelet/server).
func (k *kubelet) handler() http.Handler {
	m := http.NewServeMux()
	both := func(path string, f http.HandlerFunc) {
		m.HandleFunc("GET "+path, f)
		m.HandleFunc("POST "+path, f)
	}
	both("/exec/{namespace}/{pod}/{container}", func(w http.ResponseWriter, r *http.Request) {
		k.stream(w, r, func(c *container, o *remotecommand.Options) {
			remotecommand.ServeExec(w, r, executor{k, c}, r.PathValue("pod"), "", c.spec.Name, r.URL.Query()["command"], o, idle, creation, remotecommand.SupportedStreamingProtocols)
		})
	})
	both("/attach/{namespace}/{pod}/{container}", func(w http.ResponseWriter, r *http.Request) {
		k.stream(w, r, func(c *container, o *remotecommand.Options) {
			remotecommand.ServeAttach(w, r, executor{k, c}, r.PathValue("pod"), "", c.spec.Name, o, idle, creation, remotecommand.SupportedStreamingProtocols)
		})
	})
	both("/portForward/{namespace}/{pod}", func(w http.ResponseWriter, r *http.Request) {
		o, err := portforward.NewV4Options(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		portforward.ServePortForward(w, r, k, r.PathValue("pod"), "", o, idle, creation, portforward.SupportedProtocols)
	})
	m.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", func(w http.ResponseWriter, r *http.Request) {
		c, err := k.find(r.PathValue("namespace"), r.PathValue("pod"), r.PathValue("container"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		c.said.logs(w, r.Context(), r.URL.Query())
	})
	return m
}

func (k *kubelet) stream(w http.ResponseWriter, r *http.Request, serve func(*container, *remotecommand.Options)) {
	c, err := k.find(r.PathValue("namespace"), r.PathValue("pod"), r.PathValue("container"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	o, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	serve(c, o)
}

// executor runs commands in one container, and attaches to it.
type executor struct {
	k *kubelet
	c *container
}

// ExecInContainer is of remotecommand.Executor.
func (e executor) ExecInContainer(_ context.Context, _, _, _ string, args []string, in io.Reader, out, errs io.WriteCloser, tty bool, sizes <-chan remotecommand.TerminalSize, _ time.Duration) error {
	if len(args) == 0 {
		return errors.New("no command")
	}
	p, err := e.k.begin(args, nil, e.c.dir, tty)
	if err != nil {
		return err
	}
	go p.resize(sizes)
	if in == nil {
		if !tty {
			p.in.Close()
		}
	} else {
		go func() {
			_, _ = io.Copy(struct{ io.Writer }{p.in}, struct{ io.Reader }{in})
			if !tty {
				p.in.Close()
			}
		}()
	}
	var ended *exec.ExitError
	if err := p.carry(out, errs); errors.As(err, &ended) {
		return exited{ended}
	} else if err != nil {
		return err
	}
	return nil
}

// AttachContainer is of remotecommand.Attacher.
func (e executor) AttachContainer(ctx context.Context, _, _, _ string, in io.Reader, out, errs io.WriteCloser, _ bool, sizes <-chan remotecommand.TerminalSize) error {
	if e.c.process == nil {
		return errors.New("the container has no process to attach to")
	}
	go e.c.process.resize(sizes)
	if in != nil && e.c.process.in != nil {
		go func() { _, _ = io.Copy(struct{ io.Writer }{e.c.process.in}, struct{ io.Reader }{in}) }()
	}
	return e.c.said.attached(ctx, out, errs)
}

// PortForward is of portforward.PortForwarder: a pod's ports are this machine's.
func (k *kubelet) PortForward(ctx context.Context, _, _ string, port int32, stream io.ReadWriteCloser) error {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
	if err != nil {
		return err
	}
	defer c.Close()
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(stream, c)
		stream.Close()
	})
	_, _ = io.Copy(c, stream)
	_ = c.(*net.TCPConn).CloseWrite()
	back.Wait()
	return nil
}
