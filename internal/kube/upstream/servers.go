package upstream

import (
	"os"
	"sync"
	"time"

	"github.com/sallyport/sallyport/internal/target"
)

// files are those that were read, as they were then.
type files map[string]stamp

type stamp struct {
	at   time.Time
	size int64
}

func stampOf(path string) stamp {
	if i, err := os.Stat(path); err == nil {
		return stamp{i.ModTime(), i.Size()}
	}
	return stamp{}
}

// file reads one. How it is, is noted first: a change meanwhile is one that counts.
func (f files) file(path string) ([]byte, error) {
	f[path] = stampOf(path)
	return os.ReadFile(path)
}

func (f files) changed() bool {
	for path, was := range f {
		if is := stampOf(path); !is.at.Equal(was.at) || is.size != was.size {
			return true
		}
	}
	return false
}

// lookAgain is how long files are taken to be as they were.
const lookAgain = time.Second

// Servers are the ways to clusters, each opened when it is first needed, and anew when its cluster or a file of it changed. One that
// cannot be opened is tried again.
type Servers struct {
	now func() time.Time

	mu   sync.Mutex
	open map[string]*way // guarded by mu: by the cluster's name
}

// way is one that is open.
type way struct {
	server              *Server
	kubeconfig, context string
	looked              time.Time
}

// NewServers has none open.
func NewServers(now func() time.Time) *Servers { return &Servers{now: now, open: map[string]*way{}} }

// Of is the way to a cluster as it is now. What uses another one may go on with it.
func (s *Servers) Of(k *target.KubeCluster) (*Server, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if w := s.open[k.Name]; w != nil {
		fresh := w.kubeconfig == k.Kubeconfig && w.context == k.Context
		if fresh && now.Sub(w.looked).Abs() >= lookAgain {
			fresh, w.looked = !w.server.files.changed(), now
		}
		if fresh {
			return w.server, nil
		}
		w.server.Close()
		delete(s.open, k.Name)
	}
	server, err := Open(k)
	if err != nil {
		return nil, err
	}
	s.open[k.Name] = &way{server, k.Kubeconfig, k.Context, now}
	return server, nil
}

// Keep closes the ways to all clusters but those that are named.
func (s *Servers) Keep(named map[string]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, w := range s.open {
		if !named[name] {
			w.server.Close()
			delete(s.open, name)
		}
	}
}

// Close closes all.
func (s *Servers) Close() { s.Keep(nil) }
