// Package profile is TSH_HOME: which clusters a person knows, and the certificates of their logins.
//
//	TSH_HOME/current               the cluster in use
//	TSH_HOME/CLUSTER.json          proxy, authority, pin, user
//	TSH_HOME/keys/CLUSTER/USER.key        session key (a file of package hwkey)
//	TSH_HOME/keys/CLUSTER/USER-cert.pub   SSH certificate, as OpenSSH reads it
//	TSH_HOME/keys/CLUSTER/USER-cert.pem   X.509 certificate
//	TSH_HOME/keys/CLUSTER/USER.json       dial ticket, host authorities
//	TSH_HOME/keys/CLUSTER/USER-key.pem    session key for programs that read PEM, where it is no hardware's and they were asked for
//	TSH_HOME/keys/CLUSTER/authority.pem   the cluster's authority
//	TSH_HOME/db/CLUSTER/NAME.json         what was chosen for a database
//	TSH_HOME/kube/CLUSTER/NAME.json       what was chosen for a Kubernetes cluster
//	TSH_HOME/local/CLUSTER/        certificates that are good towards this user's local ports alone
//	TSH_HOME/run/                  sockets of local doors
//	TSH_HOME/listener.*            the background process that opens them
//	TSH_HOME/device/CLUSTER/       device keys, kept by a logout
//
// Directories are 0700 and files 0600; on Windows their access control lists let the owner alone in.
package profile

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/hwkey"
	"github.com/sallyport/sallyport/internal/identity"
)

// Home is a TSH_HOME.
type Home struct{ dir string }

// Open finds TSH_HOME, or ~/.tsh. Nothing is made before something is written.
func Open(env func(string) string) (*Home, error) {
	if dir := env("TSH_HOME"); dir != "" {
		abs, err := filepath.Abs(dir)
		return &Home{abs}, err
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return nil, fault.New(fault.Invalid, "no home directory is known").WithFix("set TSH_HOME")
	}
	return &Home{filepath.Join(home, ".tsh")}, nil
}

// Dir is the directory.
func (h *Home) Dir() string { return h.dir }

// Profile is a cluster that a person knows.
type Profile struct {
	Cluster   string `json:"cluster"`
	Proxy     string `json:"proxy"`
	User      string `json:"user"`
	Authority []byte `json:"authority"`
	CAPin     string `json:"ca_pin"`
	// Bots are the users of this cluster that this machine is by itself.
	Bots []string `json:"bots,omitempty"`
}

// Certificate is the profile's authority.
func (p *Profile) Certificate() (*x509.Certificate, error) {
	c, err := x509.ParseCertificate(p.Authority)
	if err != nil {
		return nil, fault.New(fault.Invalid, "the profile of cluster %s is damaged", p.Cluster).WithFix("tsh login --proxy=%s", p.Proxy).Wrapping(err)
	}
	return c, nil
}

func (h *Home) file(cluster string) string {
	return filepath.Join(h.dir, safe(cluster)+".json")
}

// safe makes a name fit for a path, another for each name: no separators, no dots alone, no colon (on Windows it names
// a stream of a file).
func safe(name string) string {
	s := strings.ReplaceAll(url.PathEscape(name), ":", "%3A")
	switch {
	case s == "":
		return "%"
	case strings.Trim(s, ".") == "":
		return strings.ReplaceAll(s, ".", "%2E")
	}
	return s
}

// Current is the profile in use; a NotFound fault before the first login.
func (h *Home) Current() (*Profile, error) {
	raw, err := os.ReadFile(filepath.Join(h.dir, "current"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "not logged in").WithReason("no_profile").WithFix("tsh login --proxy=HOST:PORT --user=USER")
	}
	if err != nil {
		return nil, err
	}
	return h.Profile(strings.TrimSpace(string(raw)))
}

// Profile reads a cluster's profile.
func (h *Home) Profile(cluster string) (*Profile, error) {
	raw, err := os.ReadFile(h.file(cluster))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "cluster %q is not known here", cluster).WithReason("no_profile").WithFix("tsh login --proxy=HOST:PORT")
	}
	if err != nil {
		return nil, err
	}
	var p Profile
	if err := json.Unmarshal(raw, &p); err != nil {
		return nil, fault.New(fault.Invalid, "%s is damaged", h.file(cluster)).WithFix("remove it and log in again")
	}
	return &p, nil
}

// ByProxy finds the profile of a proxy's address, or nil.
func (h *Home) ByProxy(proxy string) *Profile {
	files, err := filepath.Glob(filepath.Join(h.dir, "*.json"))
	if err != nil {
		return nil
	}
	for _, f := range files {
		raw, err := os.ReadFile(f)
		var p Profile
		if err == nil && json.Unmarshal(raw, &p) == nil && p.Proxy == proxy {
			return &p
		}
	}
	return nil
}

// Save writes a profile and makes it the current one.
func (h *Home) Save(p *Profile) error {
	raw, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return err
	}
	if err := Write(h.file(p.Cluster), raw); err != nil {
		return err
	}
	return Write(filepath.Join(h.dir, "current"), []byte(p.Cluster+"\n"))
}

// DeviceDir is where device keys for a cluster lie; on Windows below %LOCALAPPDATA%.
func (h *Home) DeviceDir(cluster string) string {
	return filepath.Join(deviceRoot(h.dir), safe(cluster))
}

// BotKey is where the key of a bot lies whose machine has no device; a logout keeps it.
func (h *Home) BotKey(p *Profile) string {
	return filepath.Join(h.DeviceDir(p.Cluster), "bot-"+safe(p.User)+".key")
}

// KeyFile is where the session key of a login lies.
func (h *Home) KeyFile(p *Profile) string { return h.key(p, ".key") }

func (h *Home) key(p *Profile, suffix string) string {
	return filepath.Join(h.dir, "keys", safe(p.Cluster), safe(p.User)+suffix)
}

// PEMKeyFile is where a session key that is a file is written for programs that read keys from PEM files.
func (h *Home) PEMKeyFile(p *Profile) string { return h.key(p, "-key.pem") }

// CertificateFile is the login's X.509 certificate.
func (h *Home) CertificateFile(p *Profile) string { return h.key(p, "-cert.pem") }

// AuthorityFile is the cluster's authority, for programs that verify by a PEM file.
func (h *Home) AuthorityFile(p *Profile) string {
	return filepath.Join(h.dir, "keys", safe(p.Cluster), "authority.pem")
}

// Login is what a login left here, beside its key.
type Login struct {
	SSH             *ssh.Certificate
	TLS             *x509.Certificate
	DialTicket      string
	HostAuthorities []ssh.PublicKey
	JumpAuthorities []ssh.PublicKey // written for OpenSSH alone, not read again
	Identity        *identity.User
}

type loginFile struct {
	DialTicket      string   `json:"dial_ticket"`
	HostAuthorities [][]byte `json:"host_authorities"`
}

// SaveLogin writes a login's certificates.
func (h *Home) SaveLogin(p *Profile, l Login) error {
	f := loginFile{DialTicket: l.DialTicket}
	var known bytes.Buffer
	for _, k := range l.HostAuthorities {
		f.HostAuthorities = append(f.HostAuthorities, k.Marshal())
		fmt.Fprintf(&known, "@cert-authority * %s", ssh.MarshalAuthorizedKey(k))
	}
	for _, k := range l.JumpAuthorities {
		fmt.Fprintf(&known, "@cert-authority %s %s", knownhosts.Normalize(p.Proxy), ssh.MarshalAuthorizedKey(k))
	}
	raw, err := json.Marshal(f)
	if err != nil {
		return err
	}
	for path, content := range map[string][]byte{
		h.key(p, "-cert.pub"): ssh.MarshalAuthorizedKey(l.SSH),
		h.key(p, "-cert.pem"): pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: l.TLS.Raw}),
		h.key(p, ".json"):     raw,
		h.KnownHosts(p):       known.Bytes(),
		h.AuthorityFile(p):    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.Authority}),
	} {
		if err := Write(path, content); err != nil {
			return err
		}
	}
	return nil
}

// KnownHosts is a known_hosts file that trusts the cluster's host authority, for OpenSSH.
func (h *Home) KnownHosts(p *Profile) string {
	return filepath.Join(h.dir, "keys", safe(p.Cluster), "known_hosts")
}

// Login reads the login of a profile; a fault with the reason logged_out where there is none, expired where it is over.
func (h *Home) Login(p *Profile, now time.Time) (*Login, error) {
	var l Login
	raw, err := os.ReadFile(h.key(p, "-cert.pub"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.Unauthenticated, "not logged in").WithReason("logged_out").WithFix("tsh login --user=%s", p.User)
	}
	if err != nil {
		return nil, err
	}
	if err := h.readLogin(p, raw, &l); err != nil {
		return nil, fault.New(fault.Unauthenticated, "the login in %s is damaged", h.dir).WithReason("logged_out").WithFix("tsh login --user=%s", p.User).Wrapping(err)
	}
	if !now.Before(l.Identity.Validity.Expires) {
		return &l, fault.New(fault.Unauthenticated, "the login has expired").WithReason("expired").
			WithCause("it ended %s ago", now.Sub(l.Identity.Validity.Expires).Truncate(time.Second)).WithFix("tsh login --user=%s", p.User)
	}
	if begins := time.Unix(int64(l.SSH.ValidAfter), 0); now.Before(begins) {
		return &l, fault.New(fault.Unauthenticated, "the login is not valid yet").WithReason("expired").
			WithCause("by this clock it begins in %s: this clock is probably behind", begins.Sub(now).Truncate(time.Second)).WithFix("check this machine's clock: date")
	}
	return &l, nil
}

func (h *Home) readLogin(p *Profile, raw []byte, l *Login) error {
	key, _, _, _, err := ssh.ParseAuthorizedKey(raw)
	if err != nil {
		return err
	}
	cert, ok := key.(*ssh.Certificate)
	if !ok {
		return errors.New("not a certificate")
	}
	l.SSH = cert
	if l.Identity, err = identity.FromSSH(cert); err != nil {
		return err
	}
	if raw, err = os.ReadFile(h.key(p, "-cert.pem")); err != nil {
		return err
	}
	block, _ := pem.Decode(raw)
	if block == nil {
		return errors.New("not PEM")
	}
	if l.TLS, err = x509.ParseCertificate(block.Bytes); err != nil {
		return err
	}
	if raw, err = os.ReadFile(h.key(p, ".json")); err != nil {
		return err
	}
	var f loginFile
	if err := json.Unmarshal(raw, &f); err != nil {
		return err
	}
	l.DialTicket = f.DialTicket
	for _, k := range f.HostAuthorities {
		public, err := ssh.ParsePublicKey(k)
		if err != nil {
			return err
		}
		l.HostAuthorities = append(l.HostAuthorities, public)
	}
	return nil
}

// Logout removes certificates, session keys and tickets of a profile; profile, pin and device keys stay.
func (h *Home) Logout(p *Profile) error {
	for _, path := range []string{h.KeyFile(p), h.key(p, "-cert.pub"), h.key(p, "-cert.pem"), h.key(p, ".json"), h.PEMKeyFile(p)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for _, dir := range []string{h.LocalDir(p), filepath.Join(h.dir, "run"), filepath.Join(h.dir, "db", safe(p.Cluster)), filepath.Join(h.dir, "kube", safe(p.Cluster))} {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return nil
}

// Write replaces a file in one step, for its owner alone, as it makes directories.
func Write(path string, raw []byte) error {
	if err := hwkey.MakeDir(filepath.Dir(path)); err != nil {
		return err
	}
	f, err := hwkey.CreateTemp(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(raw)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
