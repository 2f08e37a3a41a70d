// Package tool is what tsh's commands share: one run of the program, and the login that it reads.
package tool

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/client"
	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/hwkey"
	"github.com/sallyport/sallyport/internal/hwkey/local"
	"github.com/sallyport/sallyport/internal/profile"
)

// Tool is one run of the program. Relogin asks the person to log in again.
type Tool struct {
	console.Streams
	Debug   bool
	Now     func() time.Time
	Relogin func(context.Context) error
}

// AsSSH marks commands that end as ssh does: 255 for a failure of their own.
var AsSSH = map[string]string{"ssh": "yes"}

// Exactly refuses another number of arguments as bad usage.
func Exactly(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return console.Usagef("usage: %s", cmd.UseLine())
		}
		return nil
	}
}

// Between refuses fewer or more arguments as bad usage; no end where most is negative.
func Between(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < least || most >= 0 && len(args) > most {
			return console.Usagef("usage: %s", cmd.UseLine())
		}
		return nil
	}
}

// State is a login of this person with all that commands need of it.
type State struct {
	Home    *profile.Home
	Profile *profile.Profile
	Login   *profile.Login
	Key     hwkey.Key
	Address client.Address
}

// Load reads the current login. On a terminal, one that is over is asked for again.
func (t *Tool) Load(ctx context.Context) (*State, error) {
	s, err := t.Read()
	if err == nil || !t.Interactive() || (!fault.Because(err, "expired") && !fault.Because(err, "logged_out")) {
		return s, err
	}
	fmt.Fprintln(t.Err, fault.Of(err).Text+"; logging in again")
	if err := t.Relogin(ctx); err != nil {
		return nil, err
	}
	return t.Read()
}

// Read reads the current login as it is; beside the fault of one that is over comes what there is.
func (t *Tool) Read() (*State, error) {
	home, err := profile.Open(t.Env)
	if err != nil {
		return nil, err
	}
	return t.read(home, home.Current)
}

// ReadCluster is Read for a cluster that may not be the current one.
func (t *Tool) ReadCluster(cluster string) (*State, error) {
	home, err := profile.Open(t.Env)
	if err != nil {
		return nil, err
	}
	return t.read(home, func() (*profile.Profile, error) { return home.Profile(cluster) })
}

func (t *Tool) read(home *profile.Home, which func() (*profile.Profile, error)) (*State, error) {
	s, err := &State{Home: home}, error(nil)
	if s.Profile, err = which(); err != nil {
		return s, err
	}
	authority, err := s.Profile.Certificate()
	if err != nil {
		return s, err
	}
	s.Address = client.Address{Addr: s.Profile.Proxy, Cluster: s.Profile.Cluster, Authority: authority}
	if s.Login, err = home.Login(s.Profile, t.Now()); err != nil {
		return s, err
	}
	s.Key, err = local.LoadKey(home.KeyFile(s.Profile), t.Env("TSH_TPM"))
	return s, err
}

// ReadLogin reads the login of a proxy, or the current one, without its key.
func (t *Tool) ReadLogin(proxy string) (*State, error) {
	home, err := profile.Open(t.Env)
	if err != nil {
		return nil, err
	}
	s := &State{Home: home}
	if proxy != "" {
		s.Profile = home.ByProxy(proxy)
	}
	if s.Profile == nil {
		if s.Profile, err = home.Current(); err != nil {
			return s, err
		}
	}
	s.Login, err = home.Login(s.Profile, t.Now())
	return s, err
}

// Targets lists what the person may reach of a kind and a query matches, with their login.
func (t *Tool) Targets(ctx context.Context, kind, query string) (*State, []client.Target, error) {
	s, err := t.Load(ctx)
	if err != nil {
		return nil, nil, err
	}
	c := s.Call()
	defer c.Close()
	list, err := c.Targets(ctx, kind, query)
	return s, list, err
}

// Call reaches auth with the login's certificate.
func (s *State) Call() *client.Cluster {
	return s.Address.Call(&tls.Certificate{Certificate: [][]byte{s.Login.TLS.Raw}, PrivateKey: s.Key, Leaf: s.Login.TLS})
}

// Signer signs with the session key as the login's certificate.
func (s *State) Signer() (ssh.Signer, error) {
	signer, err := ssh.NewSignerFromSigner(s.Key)
	if err != nil {
		return nil, err
	}
	return ssh.NewCertSigner(s.Login.SSH, signer)
}

// Device is this machine towards the profile's cluster.
func (t *Tool) Device(s *State, software bool) (hwkey.Device, error) {
	return local.Open(local.Options{Dir: s.Home.DeviceDir(s.Profile.Cluster), TPM: t.Env("TSH_TPM"), Software: software})
}

// OSUser is the name of who runs this program.
func OSUser(env func(string) string) string {
	for _, name := range []string{"USER", "LOGNAME", "USERNAME"} {
		if v := env(name); v != "" {
			return v
		}
	}
	if os.Geteuid() == 0 {
		return "root"
	}
	return ""
}
