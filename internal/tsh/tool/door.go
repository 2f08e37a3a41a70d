package tool

import (
	"context"
	"crypto/tls"
	"os"
	"os/exec"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/listener"
	"github.com/sallyport/sallyport/internal/timerslack"
	"github.com/sallyport/sallyport/internal/tunnel"
)

// Certificate is the login's, with the session key behind it.
func (s *State) Certificate() *tls.Certificate {
	return &tls.Certificate{Certificate: [][]byte{s.Login.TLS.Raw}, PrivateKey: s.Key, Leaf: s.Login.TLS}
}

// Listener steers this TSH_HOME's listener, and starts it where there is none.
func (t *Tool) Listener(s *State) listener.Client {
	return listener.Client{Home: s.Home.Dir(), Spawn: func() error {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		c := exec.Command(self, "listener")
		c.Dir, c.Env = s.Home.Dir(), os.Environ()
		c.Stdin, c.Stdout, c.Stderr = nil, nil, nil
		listener.Detach(c)
		if err := timerslack.With(timerslack.Relaxed, c.Start); err != nil {
			return err
		}
		return c.Process.Release()
	}}
}

// ListenerCommand is the background process; people have no need to type it.
func (t *Tool) ListenerCommand() *cobra.Command {
	return &cobra.Command{Use: "listener", Short: "Be the background process that opens local doors (started when needed)", Hidden: true, Args: Exactly(0), Example: "  tsh listener",
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := t.Read()
			if s == nil || s.Profile == nil {
				return err
			}
			l, err := listener.New(listener.Config{Home: s.Home.Dir(), Login: t.doorLogin})
			if err != nil {
				return err
			}
			return l.Run(cmd.Context())
		}}
}

// doorLogin is the login to a cluster as it is now, for the listener.
func (t *Tool) doorLogin(cluster string) (listener.Login, error) {
	s, err := t.ReadCluster(cluster)
	if err != nil {
		return listener.Login{}, err
	}
	return listener.Login{ID: s.Login.TLS.SerialNumber.Text(16),
		Streams: func(ctx context.Context, role identity.HostRole, resource string) (*tunnel.Tunnel, error) {
			return s.Address.Streams(ctx, role, resource, s.Certificate())
		}}, nil
}

// Run runs a program of this machine in the place of this one: the terminal is its own, and so is the exit status.
func (t *Tool) Run(path string, args, env []string) error {
	c := exec.Command(path, args...)
	c.Env = append(os.Environ(), env...)
	c.Stdin, c.Stdout, c.Stderr = t.In, t.Out, t.Err
	if f, ok := t.In.(*os.File); ok {
		c.Stdin = f
	}
	return runAlone(c)
}
