package kubeserver

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Node is the node that a kubelet registers: pods with this nodeName run, as processes of this machine.
const Node = "node"

type kubelet struct {
	cmd *exec.Cmd
	in  io.Closer
}

// Kubelet starts a kubelet for Node, and returns when the node is there.
func (s *Server) Kubelet(ctx context.Context) error {
	c := exec.Command(Bin("kubelet"), "-server="+s.URL, "-token="+AdminToken, "-dir="+s.path("kubelet"), "-node="+Node)
	c.Dir, c.Env = s.Dir, []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.Dir}
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	log, err := os.OpenFile(s.path("kubelet.log"), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	c.Stderr = log
	in, err := c.StdinPipe()
	if err != nil {
		return err
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return err
	}
	s.kubelet = &kubelet{c, in}
	up := make(chan error, 1)
	go func() {
		_, err := bufio.NewReader(out).ReadString('\n')
		up <- err
	}()
	select {
	case err = <-up:
	case <-time.After(20 * time.Second):
		err = context.DeadlineExceeded
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		said, _ := os.ReadFile(s.path("kubelet.log"))
		return fmt.Errorf("the kubelet did not come up: %w\n%s", err, said)
	}
	return nil
}

// stop ends it in order, with what it runs.
func (k *kubelet) stop() {
	if k == nil {
		return
	}
	k.in.Close()
	late := time.AfterFunc(10*time.Second, func() { _ = k.cmd.Process.Kill() })
	defer late.Stop()
	_ = k.cmd.Wait()
}

// Run makes a pod of one container with a command on Node, and returns when it runs.
func (s *Server) Run(ctx context.Context, namespace, name string, command ...string) error {
	quoted := make([]string, len(command))
	for i, c := range command {
		quoted[i] = fmt.Sprintf("%q", c)
	}
	body := fmt.Sprintf(`{"metadata":{"name":%q},"spec":{"nodeName":%q,"containers":[{"name":"c","image":"i","command":[%s]}]}}`, name, Node, strings.Join(quoted, ","))
	if _, err := s.Do(ctx, "POST", "/api/v1/namespaces/"+namespace+"/pods", body); err != nil {
		return err
	}
	for {
		got, err := s.Do(ctx, "GET", "/api/v1/namespaces/"+namespace+"/pods/"+name, "")
		if err != nil {
			return err
		}
		if strings.Contains(got, `"phase":"Running"`) {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("pod %s does not run: %w", name, ctx.Err())
		}
	}
}
