// Package world is a whole cluster in the test process: auth, proxy and node on loopback, and people to log in to it.
// No shipped binary links it.
package world

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/sallyport/sallyport/internal/ceremony"
	"github.com/sallyport/sallyport/internal/client"
	"github.com/sallyport/sallyport/internal/client/contact"
	"github.com/sallyport/sallyport/internal/client/enroll"
	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/internal/daemon"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/hwkey"
	"github.com/sallyport/sallyport/internal/hwkey/local"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/role"
	"github.com/sallyport/sallyport/internal/tunnel"
)

// TB is what is used of testing.TB.
type TB interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
	Cleanup(func())
	Context() context.Context
}

// Password is everybody's.
const Password = "correct horse battery"

// World is one cluster.
type World struct {
	t     TB
	Dir   string
	State daemon.State
	Admin *client.Cluster
	Log   *Log
	stop  func()
	edit  func(*config.Config)
}

// Log is what the daemon logged.
type Log struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

// Write is of io.Writer.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// String is what was logged so far.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// New starts a cluster that lives as long as the test; second factors are off, software keys allowed. edit may change
// its config.
func New(t TB, edit func(*config.Config)) *World {
	t.Helper()
	dir, err := os.MkdirTemp("", "w") // short: a socket's path has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	w := &World{t: t, Dir: dir, Log: &Log{}, edit: edit}
	w.Start()
	t.Cleanup(func() { w.Stop() })
	return w
}

// Start runs the daemon; after a Stop it is a restart.
func (w *World) Start() {
	w.t.Helper()
	c := config.Default("example.com")
	c.NodeName, c.DataDir = "web", filepath.Join(w.Dir, "data")
	c.Auth.Listen, c.Proxy.Listen = "127.0.0.1:0", "127.0.0.1:0"
	c.Auth.Settings.SecondFactors = []string{}
	c.Auth.Settings.DeviceTrust.AllowSoftwareKeys = true
	if w.edit != nil {
		w.edit(&c)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended, ready := make(chan error, 1), make(chan daemon.State, 1)
	go func() {
		ended <- daemon.Run(ctx, daemon.Options{Config: c, Executable: "/bin/false", Out: io.Discard,
			Log: slog.New(slog.NewTextHandler(w.Log, &slog.HandlerOptions{Level: slog.LevelDebug})), Ready: func(s daemon.State) { ready <- s }})
	}()
	w.stop = sync.OnceFunc(func() {
		w.Admin.Close()
		cancel()
		if err := <-ended; err != nil {
			w.t.Errorf("the daemon ended with %v", err)
		}
	})
	select {
	case w.State = <-ready:
	case err := <-ended:
		w.t.Fatalf("the daemon did not start: %v\n%s", err, w.Log)
	case <-time.After(30 * time.Second):
		w.t.Fatal("the daemon did not start within 30 s")
	}
	w.Admin = client.Local(w.State.Socket)
}

// Stop stops the daemon in order.
func (w *World) Stop() { w.stop() }

// User makes a user with roles and the logins root and nobody.
func (w *World) User(name string, roles ...string) {
	w.t.Helper()
	a := &identity.Account{Name: name, Kind: identity.Human, Roles: roles, Traits: map[string][]string{"logins": {"root", "nobody"}}}
	if _, err := w.Admin.AddUser(w.t.Context(), a, Password); err != nil {
		w.t.Fatal(err)
	}
}

// Write writes resources over what is there.
func (w *World) Write(specs ...any) {
	w.t.Helper()
	var list []*manifest.Resource
	for _, s := range specs {
		list = append(list, manifest.New(s, 0))
	}
	if _, err := w.Admin.Write(w.t.Context(), list, true); err != nil {
		w.t.Fatal(err)
	}
}

// Role writes a role.
func (w *World) Role(r role.Role) { w.Write(&r) }

// Address is the way to the cluster through its proxy.
func (w *World) Address() client.Address {
	w.t.Helper()
	authority, err := contact.Proxy(w.t.Context(), w.State.Listen, []string{w.State.CAPin}, false)
	if err != nil {
		w.t.Fatal(err)
	}
	return client.Address{Addr: w.State.Listen, Cluster: w.State.Cluster, Authority: authority}
}

// Person is somebody who answers with fixed words.
type Person struct{ Secret, Code string }

// Password is of client.Person.
func (p Person) Password(context.Context) (string, error) { return p.Secret, nil }

// NewPassword is of client.Person.
func (p Person) NewPassword(context.Context) (string, error) { return p.Secret, nil }

// OTP is of client.Person.
func (p Person) OTP(context.Context) (string, error) { return p.Code, nil }

// NewOTP is of client.Person.
func (p Person) NewOTP(context.Context, string) (string, error) { return p.Code, nil }

// Login is a login with a key in memory, or of a device.
type Login struct {
	client.Certificates
	World *World
	User  string
	TLS   tls.Certificate
}

// Call reaches auth with the login's certificate. The caller closes it.
func (l *Login) Call() *client.Cluster { return l.World.Address().Call(&l.TLS) }

// Login logs in with the password and a fresh key in memory.
func (w *World) Login(user string) *Login {
	w.t.Helper()
	l, err := w.TryLogin(user, Password)
	if err != nil {
		w.t.Fatal(err)
	}
	return l
}

// TryLogin is Login with a password, and the error.
func (w *World) TryLogin(user, password string) (*Login, error) {
	w.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.login(client.LoginRequest{User: user, Key: key.Public()}, key, password)
}

func (w *World) login(req client.LoginRequest, key any, password string) (*Login, error) {
	a := w.Address()
	c := a.Call(nil)
	defer c.Close()
	got, err := a.Login(w.t.Context(), c, req, Person{Secret: password})
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(got.TLS)
	if err != nil {
		return nil, err
	}
	return &Login{Certificates: got, World: w, User: req.User, TLS: tls.Certificate{Certificate: [][]byte{got.TLS}, PrivateKey: key, Leaf: leaf}}, nil
}

// Device is a machine with its device keys in a directory, TPM or software.
type Device struct {
	hwkey.Device
	World *World
	Dir   string
	Tag   string
	Keep  hwkey.Enrollment
	// Claims are what the device says of itself at a login.
	Claims device.Data
	// Auto has it enroll as a login does where the cluster lets devices enroll by themselves.
	Auto bool
	OS   device.OS // linux where it is empty
}

// Device opens a machine: with the TPM at a socket, or with software keys where tpm is empty.
func (w *World) Device(tag, tpm string) *Device {
	w.t.Helper()
	dir, err := os.MkdirTemp(w.Dir, "dev")
	if err != nil {
		w.t.Fatal(err)
	}
	d, err := local.Open(local.Options{Dir: filepath.Join(dir, "device"), TPM: tpm, Software: tpm == ""})
	if err != nil {
		w.t.Fatal(err)
	}
	return &Device{Device: d, World: w, Dir: dir, Tag: tag}
}

func (d *Device) os() device.OS {
	if d.OS == "" {
		return device.Linux
	}
	return d.OS
}

// Session makes a session key beside the device key.
func (d *Device) Session() hwkey.Key {
	d.World.t.Helper()
	k, err := d.NewSession(filepath.Join(d.Dir, "session.key"))
	if err != nil {
		d.World.t.Fatal(err)
	}
	return k
}

// Enroll enrolls the device for a login: with a token, or by right.
func (d *Device) Enroll(l *Login, token string) error {
	d.World.t.Helper()
	key := d.Session()
	attestor, err := d.Device.Enroll(key)
	if err != nil {
		return err
	}
	return d.EnrollWith(l, token, key, attestor)
}

// EnrollWith is Enroll with parts that an attacker may have made.
func (d *Device) EnrollWith(l *Login, token string, key hwkey.Key, k ceremony.Key) error {
	a := d.World.Address()
	c := l.Call()
	defer c.Close()
	welcome, err := enroll.Run(d.World.t.Context(), a, c, enroll.Request{User: l.User, Certificate: l.TLS.Certificate[0], SessionKey: key.Public(), Key: k,
		Claims: device.Data{OSType: d.os(), ReportedAssetTag: d.Tag}, Token: token, Register: token == "" && !d.Auto, Auto: d.Auto, OS: d.os(), AssetTag: d.Tag})
	if err != nil {
		return err
	}
	d.Keep = hwkey.Enrollment{Kind: d.Kind(), DeviceID: welcome.DeviceID, AssetTag: welcome.AssetTag, CredentialID: welcome.CredentialID, Level: welcome.Level}
	if keeper, ok := k.(hwkey.Attestor); ok {
		return keeper.Keep(d.Keep)
	}
	return nil
}

// Login logs a user in from the device. A proof that fails is in Login.DeviceFault.
func (d *Device) Login(user string) *Login {
	d.World.t.Helper()
	return d.LoginFor(user, 0)
}

// LoginFor is Login for a time.
func (d *Device) LoginFor(user string, ttl time.Duration) *Login {
	d.World.t.Helper()
	key := d.Session()
	attestor, err := d.Device.Login(key)
	if err != nil {
		d.World.t.Fatal(err)
	}
	l, err := d.World.login(client.LoginRequest{User: user, TTL: ttl, Key: key.Public(), Device: &client.DeviceProof{Key: attestor, CredentialID: d.Keep.CredentialID, Claims: d.Claims}}, key, Password)
	if err != nil {
		d.World.t.Fatal(err)
	}
	return l
}

// Identity is what the login's certificate says.
func (l *Login) Identity() *identity.User {
	u, err := identity.FromSSH(l.SSH)
	if err != nil {
		l.World.t.Fatal(err)
	}
	return u
}

// Stream opens a stream to a node's SSH door with the login's ticket.
func (l *Login) Stream(ctx context.Context, node string) (io.ReadWriteCloser, error) {
	return l.World.Address().Stream(ctx, tunnel.Dial{Target: node, Door: tunnel.DoorSSH, Ticket: l.DialTicket})
}

// Events lists audit events of a kind, oldest first.
func (w *World) Events(kind event.Kind) []event.Event {
	w.t.Helper()
	raws, err := w.Admin.Events(w.t.Context(), client.EventFilter{Event: string(kind)})
	if err != nil {
		w.t.Fatal(err)
	}
	var out []event.Event
	for _, raw := range raws {
		ev, err := event.Parse(raw)
		if err != nil {
			w.t.Fatal(err)
		}
		out = append(out, ev)
	}
	return out
}

// Refused fails the test unless err is a fault with the reason, and the newest audit event of the kind says so too
// ("" looks at no event).
func (w *World) Refused(err error, reason string, kind event.Kind) {
	w.t.Helper()
	if !fault.Because(err, reason) {
		w.t.Fatalf("got %v (reason %q), want reason %q", err, fault.Of(orNil(err)).Reason, reason)
	}
	if kind == "" {
		return
	}
	list := w.Events(kind)
	if len(list) == 0 {
		w.t.Fatalf("no event %s", kind)
	}
	last := list[len(list)-1]
	if last.Success || last.Session == nil || last.Session.Reason != reason {
		w.t.Fatalf("the newest %s is %+v %+v, want a failure because of %s", kind, last, last.Session, reason)
	}
}

func orNil(err error) error {
	if err == nil {
		return fault.New(fault.Internal, "no error")
	}
	return err
}
