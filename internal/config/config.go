// Package config is the daemon's file, read strictly and once into a value that holds.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/label"
	"github.com/sallyport/sallyport/internal/target"
)

// Config is what a daemon does. Each part is switched on by itself.
type Config struct {
	ClusterName string
	NameGiven   bool // the file says cluster_name
	NodeName    string
	DataDir     string
	Join        *Join
	Auth        *Auth
	Proxy       *Proxy
	SSH         *SSH
	DB          *DB
	Kube        *Kube
}

// Kube is the Kubernetes agent's part: it serves these clusters, and those that `tctl create` made.
type Kube struct {
	Clusters []target.KubeCluster
}

// DB is the database agent's part: it serves these databases, and those that `tctl create` made.
type DB struct {
	Databases []target.DatabaseServer
}

// Join says how a host without auth reaches its cluster. Token may be @FILE. A proxy has Auth, others have Proxy.
type Join struct {
	Proxy  string
	Auth   string
	Token  string
	CAPins []string
}

// Auth is the auth server's part. CAFiles are paths among ekcert_allowed_cas, read by the daemon at the start.
type Auth struct {
	Listen   string
	Settings cluster.Settings
	Seeded   bool // the file has an authentication section
	CAFiles  []string
	// Recordings is the directory that session recordings are kept in, below the data directory unless it is absolute; empty:
	// none are kept. Those that began KeepFor ago are removed; 0: none.
	Recordings string
	KeepFor    time.Duration
}

// Proxy is the proxy's part.
type Proxy struct {
	Listen            string
	PublicAddr        []string
	HTTPSKeypairs     []Keypair
	ProxyProtocolFrom []netip.Prefix
}

// Keypair is a certificate and its key, as files.
type Keypair struct {
	Key  string `yaml:"key_file"`
	Cert string `yaml:"cert_file"`
}

// SSH is the SSH node's part.
type SSH struct {
	Labels label.Set
}

// file is the YAML, field by field.
type file struct {
	Version     string    `yaml:"version"`
	ClusterName string    `yaml:"cluster_name"`
	NodeName    string    `yaml:"node_name"`
	DataDir     string    `yaml:"data_dir"`
	Join        *joinFile `yaml:"join"`
	Auth        *authFile `yaml:"auth"`
	Proxy       *struct {
		Enabled           bool      `yaml:"enabled"`
		Listen            string    `yaml:"listen"`
		PublicAddr        []string  `yaml:"public_addr"`
		HTTPSKeypairs     []Keypair `yaml:"https_keypairs"`
		ProxyProtocolFrom []string  `yaml:"proxy_protocol_from"`
	} `yaml:"proxy"`
	SSH *struct {
		Enabled bool              `yaml:"enabled"`
		Labels  map[string]string `yaml:"labels"`
	} `yaml:"ssh"`
	Databases    []target.DatabaseServer `yaml:"databases"`
	Kubernetes   []target.KubeCluster    `yaml:"kubernetes"`
	Applications []yaml.Node             `yaml:"applications"`
}

type joinFile struct {
	Proxy string   `yaml:"proxy"`
	Auth  string   `yaml:"auth"`
	Token string   `yaml:"token"`
	CAPin []string `yaml:"ca_pin"`
}

type authFile struct {
	Enabled bool   `yaml:"enabled"`
	Listen  string `yaml:"listen"`
	Storage *struct {
		Type string `yaml:"type"`
	} `yaml:"storage"`
	Recordings *struct {
		Dir  string        `yaml:"dir"`
		Keep time.Duration `yaml:"keep"`
	} `yaml:"recordings"`
	Authentication *struct {
		SecondFactors []string `yaml:"second_factors"`
		DeviceTrust   *struct {
			Mode              string   `yaml:"mode"`
			AutoEnroll        bool     `yaml:"auto_enroll"`
			AllowSoftwareKeys bool     `yaml:"allow_software_keys"`
			EKCertAllowedCAs  []string `yaml:"ekcert_allowed_cas"`
			EKCertPolicy      string   `yaml:"ekcert_policy"`
			Owners            string   `yaml:"owners"`
		} `yaml:"device_trust"`
	} `yaml:"authentication"`
}

// Default is `sallyport start` without a file: auth, proxy and an SSH node on this machine.
func Default(hostname string) Config {
	name := strings.ToLower(hostname)
	return Config{ClusterName: name, NodeName: name,
		Auth:  &Auth{Listen: DefaultAuthListen, Settings: cluster.Default()},
		Proxy: &Proxy{Listen: DefaultProxyListen},
		SSH:   &SSH{},
	}
}

// Where auth and proxy listen unless told.
const (
	DefaultAuthListen  = "127.0.0.1:3025"
	DefaultProxyListen = ":3080"
)

var (
	unknownField = regexp.MustCompile(`line (\d+): field (\S+) not found in type .*`)
	wrongType    = regexp.MustCompile("line (\\d+): cannot unmarshal !!(\\S+) (`[^`]*` )?into (\\S+)")
)

// Parse reads a file; hostname is the default of both names. Unknown keys and options that this build does not
// enforce are errors that name the line.
func Parse(r io.Reader, hostname string) (Config, error) {
	raw, err := io.ReadAll(io.LimitReader(r, 1<<20))
	if err != nil {
		return Config{}, err
	}
	var f file
	dec := yaml.NewDecoder(bytes.NewReader(raw))
	dec.KnownFields(true)
	if err := dec.Decode(&f); err != nil && !errors.Is(err, io.EOF) {
		return Config{}, bad("%s", sentence(err))
	}
	b := builder{raw: raw}
	return b.build(f, hostname)
}

// sentence words what the YAML library says for a person.
func sentence(err error) string {
	var te *yaml.TypeError
	if !errors.As(err, &te) {
		return strings.TrimPrefix(err.Error(), "yaml: ")
	}
	line := te.Errors[0]
	if m := unknownField.FindStringSubmatch(line); m != nil {
		return fmt.Sprintf("line %s: unknown key %q", m[1], m[2])
	}
	if m := wrongType.FindStringSubmatch(line); m != nil {
		return fmt.Sprintf("line %s: want a %s, got a %s", m[1], m[4], m[2])
	}
	return line
}

func bad(format string, args ...any) *fault.Error {
	return fault.New(fault.Invalid, format, args...).WithReason("config")
}

// builder turns the file into a Config; raw is kept to name lines.
type builder struct{ raw []byte }

// line finds the line of a key given as its path.
func (b builder) line(path ...string) int {
	var root yaml.Node
	if yaml.Unmarshal(b.raw, &root) != nil || len(root.Content) == 0 {
		return 1
	}
	n, line := root.Content[0], 1
	for _, key := range path {
		found := false
		for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == key {
				line, n, found = n.Content[i].Line, n.Content[i+1], true
				break
			}
		}
		if !found {
			return line
		}
	}
	return line
}

func (b builder) bad(path, format string, args ...any) error {
	return bad("line %d: %s: %s", b.line(strings.Split(path, ".")...), path, fmt.Sprintf(format, args...))
}

func (b builder) build(f file, hostname string) (Config, error) {
	if f.Version != "v1" {
		return Config{}, b.bad("version", "want v1, got %q", f.Version)
	}
	host := strings.ToLower(hostname)
	c := Config{ClusterName: or(f.ClusterName, host), NameGiven: f.ClusterName != "", NodeName: or(f.NodeName, host), DataDir: f.DataDir}
	if !clusterName.MatchString(c.ClusterName) {
		return Config{}, b.bad("cluster_name", "%q is no DNS name in lower case", c.ClusterName)
	}
	if !identity.ValidName(c.NodeName) {
		return Config{}, b.bad("node_name", "%q is not 1 to 128 printable ASCII characters without space or comma", c.NodeName)
	}
	for key, list := range map[string][]yaml.Node{"applications": f.Applications} {
		if len(list) > 0 {
			return Config{}, b.bad(key, "not enforced by this build")
		}
	}
	for _, step := range []func(*Config, file) error{b.auth, b.proxy, b.ssh, b.databases, b.kubernetes, b.join} {
		if err := step(&c, f); err != nil {
			return Config{}, err
		}
	}
	if c.Auth == nil && c.Proxy == nil && c.SSH == nil && c.DB == nil && c.Kube == nil {
		return Config{}, bad("line 1: nothing is enabled: set auth, proxy or ssh to {enabled: true}, or list databases or kubernetes")
	}
	return c, nil
}

var clusterName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,200}[a-z0-9])?$`)

func (b builder) auth(c *Config, f file) error {
	if f.Auth == nil || !f.Auth.Enabled {
		return nil
	}
	a := &Auth{Listen: or(f.Auth.Listen, DefaultAuthListen), Settings: cluster.Default()}
	if _, _, err := net.SplitHostPort(a.Listen); err != nil {
		return b.bad("auth.listen", "%q is no HOST:PORT", a.Listen)
	}
	if s := f.Auth.Storage; s != nil && s.Type != "" && s.Type != "sqlite" {
		return b.bad("auth.storage.type", "%q is not enforced by this build, want sqlite", s.Type)
	}
	if r := f.Auth.Recordings; r != nil {
		if r.Dir == "" || len(r.Dir) > 1<<10 {
			return b.bad("auth.recordings", "want {dir: DIRECTORY}, where session recordings are kept")
		}
		if r.Keep < 0 || r.Keep > 0 && r.Keep < time.Hour {
			return b.bad("auth.recordings.keep", "want an hour or more, such as 2160h for 90 days")
		}
		a.Recordings, a.KeepFor = r.Dir, r.Keep
	}
	if au := f.Auth.Authentication; au != nil {
		a.Seeded = true
		if au.SecondFactors != nil {
			a.Settings.SecondFactors = au.SecondFactors
		}
		if dt := au.DeviceTrust; dt != nil {
			a.Settings.DeviceTrust = cluster.DeviceTrust{Mode: device.Mode(or(dt.Mode, "optional")), AutoEnroll: dt.AutoEnroll,
				AllowSoftwareKeys: dt.AllowSoftwareKeys, EKCertPolicy: dt.EKCertPolicy, Owners: dt.Owners}
			for _, ca := range dt.EKCertAllowedCAs {
				if strings.Contains(ca, "-----BEGIN") {
					a.Settings.DeviceTrust.EKCertAllowedCAs = append(a.Settings.DeviceTrust.EKCertAllowedCAs, ca)
				} else {
					a.CAFiles = append(a.CAFiles, ca)
				}
			}
		}
		if err := a.Settings.Check(); err != nil {
			field, _, _ := strings.Cut(err.Error(), ":")
			return bad("line %d: auth.authentication.%v", b.line(append([]string{"auth", "authentication"}, strings.Split(field, ".")...)...), err)
		}
	}
	c.Auth = a
	return nil
}

func (b builder) proxy(c *Config, f file) error {
	if f.Proxy == nil || !f.Proxy.Enabled {
		return nil
	}
	p := &Proxy{Listen: or(f.Proxy.Listen, DefaultProxyListen), PublicAddr: f.Proxy.PublicAddr, HTTPSKeypairs: f.Proxy.HTTPSKeypairs}
	for _, a := range append([]string{p.Listen}, p.PublicAddr...) {
		if _, _, err := net.SplitHostPort(a); err != nil {
			return b.bad("proxy.public_addr", "%q is no HOST:PORT", a)
		}
	}
	for _, k := range p.HTTPSKeypairs {
		if k.Key == "" || k.Cert == "" {
			return b.bad("proxy.https_keypairs", "each needs key_file and cert_file")
		}
	}
	for _, s := range f.Proxy.ProxyProtocolFrom {
		prefix, err := netip.ParsePrefix(s)
		if addr, e := netip.ParseAddr(s); e == nil {
			prefix, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		if err != nil {
			return b.bad("proxy.proxy_protocol_from", "%q is no address or CIDR", s)
		}
		p.ProxyProtocolFrom = append(p.ProxyProtocolFrom, prefix)
	}
	c.Proxy = p
	return nil
}

func (b builder) ssh(c *Config, f file) error {
	if f.SSH == nil || !f.SSH.Enabled {
		return nil
	}
	c.SSH = &SSH{Labels: f.SSH.Labels}
	if err := (identity.Server{Labels: f.SSH.Labels}).Check(); err != nil {
		return b.bad("ssh.labels", "%v", err)
	}
	return nil
}

// databases takes the list; an empty one serves what `tctl create` makes.
func (b builder) databases(c *Config, f file) error {
	if f.Databases == nil {
		return nil
	}
	seen := map[string]bool{}
	for i, d := range f.Databases {
		if err := d.Check(); err != nil {
			return b.bad("databases", "entry %d: %v", i+1, err)
		}
		if seen[d.Name] {
			return b.bad("databases", "entry %d: name: %q is there twice", i+1, d.Name)
		}
		seen[d.Name] = true
	}
	c.DB = &DB{Databases: f.Databases}
	return nil
}

// kubernetes takes the list; an empty one serves what `tctl create` makes.
func (b builder) kubernetes(c *Config, f file) error {
	if f.Kubernetes == nil {
		return nil
	}
	seen := map[string]bool{}
	for i, k := range f.Kubernetes {
		if err := k.Check(); err != nil {
			return b.bad("kubernetes", "entry %d: %v", i+1, err)
		}
		if seen[k.Name] {
			return b.bad("kubernetes", "entry %d: name: %q is there twice", i+1, k.Name)
		}
		seen[k.Name] = true
	}
	c.Kube = &Kube{Clusters: f.Kubernetes}
	return nil
}

func (b builder) join(c *Config, f file) error {
	if f.Join == nil {
		if c.Auth == nil {
			return bad("line 1: join: needed where auth is not enabled: {proxy, token, ca_pin}, or auth in place of proxy for a proxy")
		}
		return nil
	}
	if c.Auth != nil {
		return b.bad("join", "auth is enabled here, so there is nothing to join")
	}
	j := &Join{Proxy: f.Join.Proxy, Auth: f.Join.Auth, Token: f.Join.Token, CAPins: f.Join.CAPin}
	c.Join = j
	if err := c.CheckJoin(); err != nil {
		return b.bad("join", "%v", err)
	}
	return nil
}

// CheckJoin judges the join part against what is enabled.
func (c Config) CheckJoin() error {
	j := c.Join
	if c.Proxy != nil && j.Auth == "" {
		return errors.New("a proxy joins by auth: HOST:3025")
	}
	if c.Proxy == nil && j.Proxy == "" {
		return errors.New("an agent joins by proxy: HOST:PORT")
	}
	if len(j.CAPins) == 0 {
		return errors.New("needs ca_pin, as `tctl status` shows it")
	}
	for _, p := range j.CAPins {
		if !Pin.MatchString(p) {
			return fmt.Errorf("ca_pin %q is not sha256: and 64 hex digits", p)
		}
	}
	return nil
}

// Pin is what a CA pin looks like.
var Pin = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

func or(s, def string) string {
	if s == "" {
		return def
	}
	return s
}
