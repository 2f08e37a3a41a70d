package tsh

import (
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"rsc.io/qr"

	"github.com/sallyport/sallyport/internal/client"
	"github.com/sallyport/sallyport/internal/client/contact"
	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/hostinfo"
	"github.com/sallyport/sallyport/internal/hwkey"
	"github.com/sallyport/sallyport/internal/hwkey/local"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/profile"
	"github.com/sallyport/sallyport/internal/tsh/doctor"
	"github.com/sallyport/sallyport/internal/tsh/tool"
)

type loginFlags struct {
	proxy    string
	user     string
	pins     []string
	insecure bool
	ttl      time.Duration
	invite   string
	token    string
	quiet    bool
}

func (a *app) loginCommand() *cobra.Command {
	var f loginFlags
	c := &cobra.Command{Use: "login", Short: "Log in to a cluster", Args: tool.Exactly(0),
		Example: "  tsh login --proxy=proxy.example.com:3080 --user=alice\n  tsh login --user=alice",
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.login(cmd.Context(), f) }}
	fl := c.Flags()
	fl.StringVar(&f.proxy, "proxy", "", "HOST:PORT of the cluster's proxy; later logins need none")
	fl.StringVar(&f.user, "user", "", "user name")
	fl.StringSliceVar(&f.pins, "ca-pin", nil, "CA pin of the cluster, as tctl status shows it")
	fl.BoolVar(&f.insecure, "insecure", false, "take the server's authority as it is, and warn")
	fl.DurationVar(&f.ttl, "ttl", 0, "how long the login lives, such as 8h")
	fl.StringVar(&f.invite, "invite", "", "single-use invite: TOKEN, @FILE, or - for standard input")
	fl.StringVar(&f.token, "token", "", "a bot's single-use token, at its first login: TOKEN, @FILE, or - for standard input")
	return c
}

// login runs a login and keeps what it brings.
func (a *app) login(ctx context.Context, f loginFlags) error {
	if f.ttl < 0 {
		return console.Usagef("--ttl: %s is no time to live", f.ttl)
	}
	s, err := a.destination(ctx, f)
	if err != nil {
		return err
	}
	if f.token != "" || slices.Contains(s.Profile.Bots, s.Profile.User) {
		return a.botLogin(ctx, s, f)
	}
	invite, err := a.secret(f.invite)
	if err != nil {
		return err
	}
	if err := hwkey.MakeDir(filepath.Dir(s.Home.KeyFile(s.Profile))); err != nil {
		return err
	}
	fresh := s.Home.KeyFile(s.Profile) + ".new"
	defer os.Remove(fresh)
	key, proof, deviceErr := a.sessionKey(s, fresh)
	if key == nil {
		return deviceErr
	}
	c := s.Address.Call(nil)
	defer c.Close()
	got, err := s.Address.Login(ctx, c, client.LoginRequest{User: s.Profile.User, Invite: invite, TTL: f.ttl, Key: key.Public(), Device: proof}, person{a})
	if err != nil {
		return err
	}
	if deviceErr == nil {
		deviceErr = a.moved(s, got.DeviceFault)
	}
	if err := a.keep(s, fresh, key, got); err != nil {
		return err
	}
	a.warnAboutDevice(deviceErr)
	if deviceErr == nil && got.AutoEnroll {
		a.autoEnroll(ctx, s)
	}
	if f.quiet {
		return nil
	}
	return a.printStatus(s, "text")
}

// destination finds profile and authority: those that are kept, or those of a first contact.
func (a *app) destination(ctx context.Context, f loginFlags) (*tool.State, error) {
	home, err := profile.Open(a.Env)
	if err != nil {
		return nil, err
	}
	s := &tool.State{Home: home}
	if f.proxy == "" {
		s.Profile, err = home.Current()
	} else if s.Profile = home.ByProxy(f.proxy); s.Profile == nil {
		s.Profile, err = a.firstContact(ctx, f)
	}
	if err != nil {
		return nil, err
	}
	authority, err := s.Profile.Certificate()
	if err != nil {
		return nil, err
	}
	if len(f.pins) > 0 {
		if err := contact.MatchPin(authority, f.pins); err != nil {
			return nil, err
		}
	}
	if f.user != "" {
		s.Profile.User = f.user
	}
	if s.Profile.User == "" {
		s.Profile.User = tool.OSUser(a.Env)
	}
	if !identity.ValidName(s.Profile.User) {
		return nil, console.Usagef("--user: %q is no user name", s.Profile.User)
	}
	s.Address = client.Address{Addr: s.Profile.Proxy, Cluster: s.Profile.Cluster, Authority: authority}
	return s, nil
}

// firstContact asks an unknown proxy for its cluster's authority, and a person where nothing else vouches for it.
func (a *app) firstContact(ctx context.Context, f loginFlags) (*profile.Profile, error) {
	proxy := f.proxy
	if !strings.Contains(strings.TrimPrefix(proxy, "["), ":") {
		proxy += ":3080"
	}
	authority, err := contact.Proxy(ctx, proxy, f.pins, f.insecure)
	if fault.Because(err, "first_contact") && a.Interactive() {
		fmt.Fprintf(a.Err, "The server at %s is not known. Its CA pin is\n  %s\nCompare it with `tctl status` on the server.\n", proxy, cluster.Pin(authority))
		var yes bool
		if yes, err = a.Confirm("Do you trust it?"); err == nil && !yes {
			err = fault.New(fault.Unauthenticated, "the server was not trusted").WithReason("first_contact")
		}
	}
	if err != nil {
		return nil, err
	}
	if f.insecure && len(f.pins) == 0 {
		fmt.Fprintf(a.Err, "WARNING: taking the server at %s as it is; its CA pin is %s\n", proxy, cluster.Pin(authority))
	}
	p := &profile.Profile{Cluster: authority.Subject.CommonName, Proxy: proxy, User: f.user, Authority: authority.Raw, CAPin: cluster.Pin(authority)}
	return p, nil
}

// secret reads a single-use secret: as it is, from @FILE, or from standard input for -.
func (a *app) secret(s string) (string, error) {
	switch {
	case s == "-":
		return a.Ask("")
	case strings.HasPrefix(s, "@"):
		raw, err := os.ReadFile(s[1:])
		if err != nil {
			return "", fault.New(fault.Invalid, "%v", err)
		}
		return strings.TrimSpace(string(raw)), nil
	}
	return s, nil
}

// sessionKey makes a session key: in the enrolled device, with the proof for it, else in a file. An enrolled device
// that cannot be used is told beside the key that is used instead.
func (a *app) sessionKey(s *tool.State, path string) (hwkey.Key, *client.DeviceProof, error) {
	key, proof, err := a.deviceKey(s, path)
	if err == nil && key != nil {
		return key, proof, nil
	}
	plain, perr := local.NewKey(path)
	if perr != nil {
		return nil, nil, perr
	}
	return plain, nil, err
}

// deviceKey is sessionKey on an enrolled device; all nil where the device is not enrolled.
func (a *app) deviceKey(s *tool.State, path string) (hwkey.Key, *client.DeviceProof, error) {
	dev, err := a.Device(s, false)
	if err != nil {
		if fault.Because(err, hwkey.ErrNoEnclave.Reason) {
			return nil, nil, nil
		}
		return nil, nil, err
	}
	e, err := dev.Enrollment()
	if fault.Because(err, hwkey.ErrNotEnrolled.Reason) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	key, err := dev.NewSession(path)
	if err != nil {
		return nil, nil, err
	}
	attestor, err := dev.Login(key)
	if err != nil {
		return nil, nil, err
	}
	claims, _ := hostinfo.Collect(cluster.Version, a.Now())
	return key, &client.DeviceProof{Key: attestor, CredentialID: e.CredentialID, Claims: claims}, nil
}

// moved names a device key that came from another machine.
func (a *app) moved(s *tool.State, err error) error {
	if err == nil {
		return nil
	}
	dev, derr := a.Device(s, false)
	if derr != nil {
		return err
	}
	e, derr := dev.Enrollment()
	if derr != nil {
		return err
	}
	_, tag := hostinfo.Collect(cluster.Version, a.Now())
	return doctor.Moved(err, e, tag)
}

// warnAboutDevice says in one line why an enrolled device gave no proof, and what to do.
func (a *app) warnAboutDevice(err error) {
	if err == nil {
		return
	}
	f := fault.Of(err)
	line := "no device proof: " + f.Text
	if f.Kind == fault.Internal && f.Err != nil {
		line += ": " + f.Err.Error()
	}
	if f.Cause != "" {
		line += " (" + f.Cause + ")"
	}
	fix := f.Fix
	if fix == "" {
		fix = "tsh device doctor"
	}
	fmt.Fprintln(a.Err, console.Safe(line+"; to fix: "+fix))
}

// keep writes profile, key and certificates.
func (a *app) keep(s *tool.State, fresh string, key hwkey.Key, got client.Certificates) error {
	cert, err := x509.ParseCertificate(got.TLS)
	if err != nil {
		return fmt.Errorf("user certificate: %w", err)
	}
	u, err := identity.FromSSH(got.SSH)
	if err != nil {
		return fmt.Errorf("user certificate: %w", err)
	}
	if public, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(key.Public()) {
		return fault.New(fault.Invalid, "the certificate is for another key")
	}
	login := profile.Login{SSH: got.SSH, TLS: cert, DialTicket: got.DialTicket, HostAuthorities: got.HostAuthorities, JumpAuthorities: got.JumpAuthorities, Identity: u}
	if err := os.Rename(fresh, s.Home.KeyFile(s.Profile)); err != nil {
		return err
	}
	if err := s.Home.SaveLogin(s.Profile, login); err != nil {
		return err
	}
	s.Login, s.Key = &login, key
	for _, n := range got.Notices {
		fmt.Fprintln(a.Err, console.Safe(n))
	}
	return s.Home.Save(s.Profile)
}

// person answers a login's questions.
type person struct{ *app }

// Password is of client.Person.
func (p person) Password(context.Context) (string, error) { return p.AskSecret("Password: ") }

// OTP is of client.Person.
func (p person) OTP(context.Context) (string, error) { return p.AskSecret("One-time code: ") }

// NewPassword is of client.Person.
func (p person) NewPassword(context.Context) (string, error) {
	for range 3 {
		one, err := p.AskSecret("New password (at least 8 characters): ")
		if err != nil || !p.Interactive() {
			return one, err
		}
		two, err := p.AskSecret("New password again: ")
		if err != nil {
			return "", err
		}
		if one == two && len(one) >= 8 {
			return one, nil
		}
		fmt.Fprintln(p.Err, "The two differ, or are too short.")
	}
	return "", fault.New(fault.Invalid, "no password was set")
}

// NewOTP is of client.Person.
func (p person) NewOTP(_ context.Context, url string) (string, error) {
	fmt.Fprintln(p.Err, "Scan this with an authenticator app, or type the secret in:")
	if code, err := qr.Encode(url, qr.M); err == nil && p.Interactive() {
		fmt.Fprint(p.Err, console.QR(code, p.UTF8()))
	}
	fmt.Fprintln(p.Err, url)
	return p.Ask("One-time code: ")
}

func (a *app) passwdCommand() *cobra.Command {
	return &cobra.Command{Use: "passwd", Short: "Change your password", Example: "  tsh passwd", Args: tool.Exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.Load(cmd.Context())
			if err != nil {
				return err
			}
			c := s.Call()
			defer c.Close()
			hello, err := c.Hello(cmd.Context())
			if err != nil {
				return err
			}
			old, err := a.AskSecret("Old password: ")
			if err != nil {
				return err
			}
			fresh, err := person{a}.NewPassword(cmd.Context())
			if err != nil {
				return err
			}
			otp := ""
			if len(hello.SecondFactors) > 0 {
				if otp, err = (person{a}).OTP(cmd.Context()); err != nil {
					return err
				}
			}
			if err := c.ChangePassword(cmd.Context(), old, fresh, otp); err != nil {
				return err
			}
			fmt.Fprintln(a.Out, "The password was changed.")
			return nil
		}}
}
