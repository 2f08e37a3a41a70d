package target

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/internal/label"
)

// Protocol is what a database speaks.
type Protocol string

// The protocols.
const (
	PostgreSQL Protocol = "postgres"
	MySQL      Protocol = "mysql" // MariaDB too
	Redis      Protocol = "redis"
	MongoDB    Protocol = "mongodb"
)

// Protocols lists them.
func Protocols() []Protocol { return []Protocol{PostgreSQL, MySQL, Redis, MongoDB} }

// Makes reports whether users can be made on demand there.
func (p Protocol) Makes() bool { return p == PostgreSQL || p == MySQL }

// DatabaseServer is a database resource: a server that agents of role db reach.
type DatabaseServer struct {
	Name     string    `json:"-" yaml:"name"`
	Labels   label.Set `json:"-" yaml:"labels"`
	Protocol Protocol  `json:"protocol" yaml:"protocol"`
	// URI is HOST:PORT of the server.
	URI string `json:"uri" yaml:"uri"`
	// TLS says how the server is verified.
	TLS DatabaseTLS `json:"tls,omitzero" yaml:"tls"`
	// PasswordFile is a file on the agent, readable by it alone, with a line `USER:PASSWORD` for each user who has one there;
	// without it agents show client certificates of the database's own authority.
	PasswordFile string `json:"password_file,omitempty" yaml:"password_file"`
	// AdminUser is the database user that makes others, where roles set create_db_user_mode.
	AdminUser string `json:"admin_user,omitempty" yaml:"admin_user"`
	// Agents, ids or names, are who serves it; every agent of role db where it is empty.
	Agents []string `json:"agents,omitempty" yaml:"-"`
}

// DatabaseTLS says how an agent verifies a server. Without CA and CAFile it is the database's own authority
// (`tctl auth sign --db=NAME`).
type DatabaseTLS struct {
	CA         string `json:"ca,omitempty" yaml:"ca"`           // PEM
	CAFile     string `json:"ca_file,omitempty" yaml:"ca_file"` // a file on the agent; `system` for the system's authorities
	ServerName string `json:"server_name,omitempty" yaml:"server_name"`
}

// Check refuses what does not hold.
func (d DatabaseServer) Check() error {
	if err := checkName(d.Name); err != nil {
		return err
	}
	if !slices.Contains(Protocols(), d.Protocol) {
		return fmt.Errorf("protocol: unknown protocol %q, want postgres, mysql, redis or mongodb", d.Protocol)
	}
	if host, port, err := net.SplitHostPort(d.URI); err != nil || host == "" || port == "" {
		return fmt.Errorf("uri: %q is no HOST:PORT", d.URI)
	}
	if d.TLS.CA != "" && d.TLS.CAFile != "" {
		return fmt.Errorf("tls: ca and ca_file are two answers to one question")
	}
	return checkLabels(d.Labels)
}

func checkName(name string) error {
	if len(name) > 128 || !label.Name(name) || strings.ContainsAny(name, "/ ") {
		return fmt.Errorf("name: %q is not 1 to 128 printable ASCII characters without space, comma, slash or equals sign", name)
	}
	return nil
}

func checkLabels(set label.Set) error {
	for k, v := range set {
		if !label.Name(k) || (v != "" && !label.Name(v)) {
			return fmt.Errorf("labels: %q: %q is not printable ASCII without comma or equals sign", k, v)
		}
	}
	return nil
}

// Served is one resource that an agent serves, as the roster shows it; its kind is that of the agent's role.
type Served struct {
	Name     string    `json:"name"`
	Protocol Protocol  `json:"protocol,omitempty"`
	Labels   label.Set `json:"labels,omitempty"`
}

// MaxServed is how many resources one agent may serve.
const MaxServed = 1000

// CheckServed refuses a list that does not hold: too long, a name twice, or a bad name or label.
func CheckServed(list []Served) error {
	if len(list) > MaxServed {
		return fmt.Errorf("an agent serves %d resources at most, not %d", MaxServed, len(list))
	}
	seen := map[string]bool{}
	for _, s := range list {
		if err := checkName(s.Name); err != nil {
			return err
		}
		if seen[SNIName(s.Name)] {
			return fmt.Errorf("name: %q is there twice", s.Name)
		}
		seen[SNIName(s.Name)] = true
		if err := checkLabels(s.Labels); err != nil {
			return err
		}
	}
	return nil
}

// SNIName is a resource's name as a DNS label: itself where it is one in lower case, else x- and 16 hex digits of its
// SHA-256.
func SNIName(name string) string {
	ok := name != "" && len(name) <= 63 && name[0] != '-' && name[len(name)-1] != '-' && !strings.HasPrefix(name, "x-")
	for i := 0; ok && i < len(name); i++ {
		c := name[i]
		ok = c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-'
	}
	if ok {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return "x-" + hex.EncodeToString(sum[:8])
}
