package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// kubelet keeps the pods of one node.
type kubelet struct {
	config
	client *http.Client
	start  func(func() error) error

	mu   sync.Mutex
	pods map[string]*pod // guarded by mu; by namespace/name
	all  sync.WaitGroup
}

// pod is one that runs. Its mu guards what is below it.
type pod struct {
	mu         sync.Mutex
	object     *core.Pod
	containers map[string]*container
	gone       bool
}

type container struct {
	spec    core.Container
	said    *said
	process *process // nil where it has no command: it only is there
	dir     string
	began   meta.Time
	ended   *core.ContainerStateTerminated
}

// call makes a request and reads the answer into out.
func (k *kubelet) call(ctx context.Context, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	res, err := k.open(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if out == nil {
		_, err = io.Copy(io.Discard, res.Body)
		return err
	}
	return json.NewDecoder(res.Body).Decode(out)
}

var errConflict = errors.New("it changed meanwhile")

func (k *kubelet) open(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body bytes.Buffer
	if in != nil {
		if err := json.NewEncoder(&body).Encode(in); err != nil {
			return nil, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, k.server+path, &body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+k.token)
	req.Header.Set("Content-Type", "application/json")
	if method == http.MethodPatch {
		req.Header.Set("Content-Type", "application/strategic-merge-patch+json")
	}
	res, err := k.client.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode < 300 {
		return res, nil
	}
	defer res.Body.Close()
	raw, _ := io.ReadAll(io.LimitReader(res.Body, 4096))
	if res.StatusCode == http.StatusConflict {
		return nil, errConflict
	}
	return nil, fmt.Errorf("%s %s: %s: %s", method, path, res.Status, raw)
}

// register puts the node into the cluster, with the port that this kubelet listens on.
func (k *kubelet) register(ctx context.Context, port int) error {
	n := &core.Node{ObjectMeta: meta.ObjectMeta{Name: k.node}}
	if err := k.call(ctx, http.MethodPost, "/api/v1/nodes", n, nil); err != nil && !errors.Is(err, errConflict) {
		return err
	}
	status := map[string]any{"status": core.NodeStatus{
		Addresses:       []core.NodeAddress{{Type: core.NodeInternalIP, Address: "127.0.0.1"}},
		DaemonEndpoints: core.NodeDaemonEndpoints{KubeletEndpoint: core.DaemonEndpoint{Port: int32(port)}},
		Conditions:      []core.NodeCondition{{Type: core.NodeReady, Status: core.ConditionTrue, Reason: "KubeletReady", LastHeartbeatTime: meta.Now(), LastTransitionTime: meta.Now()}},
	}}
	return k.call(ctx, http.MethodPatch, "/api/v1/nodes/"+k.node+"/status", status, nil)
}

// follow keeps to the pods that are bound to the node, through restarts of the API server.
func (k *kubelet) follow(ctx context.Context) {
	for ctx.Err() == nil {
		if err := k.watch(ctx); err != nil && ctx.Err() == nil {
			fmt.Fprintln(os.Stderr, "kubelet:", err)
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func (k *kubelet) watch(ctx context.Context) error {
	var list core.PodList
	at := "/api/v1/pods?fieldSelector=spec.nodeName%3D" + k.node
	if err := k.call(ctx, http.MethodGet, at, nil, &list); err != nil {
		return err
	}
	for i := range list.Items {
		k.is(ctx, &list.Items[i])
	}
	res, err := k.open(ctx, http.MethodGet, at+"&watch=true&resourceVersion="+list.ResourceVersion, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	for dec := json.NewDecoder(res.Body); ; {
		var ev struct {
			Type   string
			Object json.RawMessage
		}
		if err := dec.Decode(&ev); err != nil {
			return err
		}
		var p core.Pod
		if ev.Type == "ERROR" || json.Unmarshal(ev.Object, &p) != nil {
			return errors.New("the watch is over")
		}
		if ev.Type == "DELETED" {
			k.gone(&p)
			continue
		}
		k.is(ctx, &p)
	}
}

func key(p *core.Pod) string { return p.Namespace + "/" + p.Name }

// is makes what runs follow what a pod is now.
func (k *kubelet) is(ctx context.Context, o *core.Pod) {
	k.mu.Lock()
	p := k.pods[key(o)]
	if p == nil {
		p = &pod{containers: map[string]*container{}}
		k.pods[key(o)] = p
	}
	k.mu.Unlock()
	p.mu.Lock()
	p.object = o
	if o.DeletionTimestamp != nil {
		p.mu.Unlock()
		k.gone(o)
		zero := int64(0)
		_ = k.call(ctx, http.MethodDelete, path(o), &meta.DeleteOptions{GracePeriodSeconds: &zero, Preconditions: &meta.Preconditions{UID: &o.UID}}, nil)
		return
	}
	changed := false
	specs := o.Spec.Containers
	for _, e := range o.Spec.EphemeralContainers {
		specs = append(specs, core.Container(e.EphemeralContainerCommon))
	}
	for _, s := range specs {
		if p.containers[s.Name] == nil {
			p.containers[s.Name], changed = k.run(ctx, p, s), true
		}
	}
	p.mu.Unlock()
	if changed {
		k.tell(ctx, p)
	}
}

func path(o *core.Pod) string { return "/api/v1/namespaces/" + o.Namespace + "/pods/" + o.Name }

// run starts a container's process. One with standard input and no command is a shell, as of the images that people debug
// with; one with neither is only there.
func (k *kubelet) run(ctx context.Context, p *pod, spec core.Container) *container {
	c := &container{spec: spec, said: newSaid(), began: meta.Now(), dir: filepath.Join(k.dir, "pods", string(p.object.UID), spec.Name)}
	args := append(append([]string{}, spec.Command...), spec.Args...)
	if len(args) == 0 && spec.Stdin {
		args = []string{"sh"}
	}
	err := os.MkdirAll(c.dir, 0o700)
	if err == nil && len(args) > 0 {
		env := []string{"HOSTNAME=" + p.object.Name}
		for _, e := range spec.Env {
			env = append(env, e.Name+"="+e.Value)
		}
		c.process, err = k.begin(args, env, c.dir, spec.TTY)
	}
	if err != nil {
		c.process = nil
		c.said.add(true, []byte(err.Error()+"\n"))
		c.said.end()
		c.ended = &core.ContainerStateTerminated{ExitCode: 128, Reason: "StartError", Message: err.Error(), StartedAt: c.began, FinishedAt: meta.Now()}
		return c
	}
	if c.process == nil {
		return c
	}
	if !spec.Stdin {
		c.process.in.Close()
		c.process.in = nil
	}
	k.all.Go(func() {
		k.carry(c)
		p.mu.Lock()
		c.ended = &core.ContainerStateTerminated{ExitCode: int32(c.process.cmd.ProcessState.ExitCode()), Reason: "Completed", StartedAt: c.began, FinishedAt: meta.Now()}
		gone := p.gone
		p.mu.Unlock()
		if !gone {
			k.tell(ctx, p)
		}
	})
	return c
}

func (k *kubelet) carry(c *container) {
	defer c.said.end()
	out, errs := io.Writer(writer{c.said, false}), io.Writer(writer{c.said, true})
	if c.spec.TTY { // of a terminal what was typed is to be seen at once
		_ = c.process.carry(out, errs)
		return
	}
	var both sync.WaitGroup
	for _, w := range []*io.Writer{&out, &errs} {
		r, in := io.Pipe()
		to := (*w).(writer)
		both.Go(func() { to.lines(r) })
		*w = in
	}
	_ = c.process.carry(out, errs)
	out.(io.Closer).Close()
	errs.(io.Closer).Close()
	both.Wait()
}

// tell writes a pod's state into its object.
func (k *kubelet) tell(ctx context.Context, p *pod) {
	for range 5 {
		p.mu.Lock()
		o, status := p.object, p.status()
		p.mu.Unlock()
		err := k.call(ctx, http.MethodPatch, path(o)+"/status", map[string]any{"status": status}, nil)
		if err == nil || ctx.Err() != nil {
			return
		}
		if !errors.Is(err, errConflict) {
			fmt.Fprintln(os.Stderr, "kubelet:", err)
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return
		}
	}
}

// status is what a pod's object says. p.mu is held.
func (p *pod) status() core.PodStatus {
	now := meta.Now()
	s := core.PodStatus{Phase: core.PodSucceeded, PodIP: "127.0.0.1", PodIPs: []core.PodIP{{IP: "127.0.0.1"}}, HostIP: "127.0.0.1", StartTime: &now}
	ready := core.ConditionFalse
	one := func(spec core.Container) core.ContainerStatus {
		c := p.containers[spec.Name]
		st := core.ContainerStatus{Name: spec.Name, Image: spec.Image, ImageID: spec.Image, ContainerID: "test://" + spec.Name}
		if c == nil {
			st.State.Waiting = &core.ContainerStateWaiting{Reason: "ContainerCreating"}
			return st
		}
		if c.ended != nil {
			st.State.Terminated = c.ended
			return st
		}
		yes := true
		st.State.Running, st.Ready, st.Started = &core.ContainerStateRunning{StartedAt: c.began}, true, &yes
		return st
	}
	for _, spec := range p.object.Spec.Containers {
		st := one(spec)
		s.ContainerStatuses = append(s.ContainerStatuses, st)
		switch {
		case st.State.Running != nil:
			s.Phase, ready = core.PodRunning, core.ConditionTrue
		case s.Phase == core.PodSucceeded && st.State.Terminated != nil && st.State.Terminated.ExitCode != 0:
			s.Phase = core.PodFailed
		}
	}
	for _, e := range p.object.Spec.EphemeralContainers {
		s.EphemeralContainerStatuses = append(s.EphemeralContainerStatuses, one(core.Container(e.EphemeralContainerCommon)))
	}
	for _, t := range []core.PodConditionType{core.PodInitialized, core.PodReady, core.ContainersReady, core.PodScheduled} {
		is := core.ConditionTrue
		if t == core.PodReady || t == core.ContainersReady {
			is = ready
		}
		s.Conditions = append(s.Conditions, core.PodCondition{Type: t, Status: is, LastTransitionTime: now})
	}
	return s
}

// gone ends what runs of a pod.
func (k *kubelet) gone(o *core.Pod) {
	k.mu.Lock()
	p := k.pods[key(o)]
	delete(k.pods, key(o))
	k.mu.Unlock()
	if p != nil {
		p.end()
	}
}

func (p *pod) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone = true
	for _, c := range p.containers {
		if c.process != nil && c.ended == nil {
			c.process.kill()
		}
	}
}

// stop ends everything.
func (k *kubelet) stop() {
	k.mu.Lock()
	for _, p := range k.pods {
		p.end()
	}
	k.mu.Unlock()
	k.all.Wait()
}

// find gives a pod's container.
func (k *kubelet) find(namespace, name, of string) (*container, error) {
	k.mu.Lock()
	p := k.pods[namespace+"/"+name]
	k.mu.Unlock()
	if p == nil {
		return nil, fmt.Errorf("pod %q does not exist", name)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.containers[of]
	if c == nil {
		return nil, fmt.Errorf("container %q not found in pod %q", of, name)
	}
	return c, nil
}

// exited is the end of a process as remotecommand reads it: one that a signal ended has 128 and its number, as in shells.
type exited struct{ *exec.ExitError }

// Exited is of k8s.io/utils/exec.ExitError.
func (e exited) Exited() bool { return true }

// ExitStatus is of k8s.io/utils/exec.ExitError.
func (e exited) ExitStatus() int {
	if s, ok := e.Sys().(syscall.WaitStatus); ok && s.Signaled() {
		return 128 + int(s.Signal())
	}
	return e.ExitCode()
}
