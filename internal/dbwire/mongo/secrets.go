package mongo

import "strings"

// Masked stands in place of a secret.
const Masked = "***"

// secrets are, by command in lower case, the fields that hold secrets, in lower case, at any depth: those of the drivers'
// specification of redacted commands (Command Logging and Monitoring), and those that the server keeps out of its own log.
var secrets = map[string][]string{
	"authenticate": {"key", "nonce", "pwd"}, "saslstart": {"payload"}, "saslcontinue": {"payload"},
	"hello": {"speculativeauthenticate"}, "ismaster": {"speculativeauthenticate"},
	"createuser": {"pwd"}, "updateuser": {"pwd"},
	"copydb": {"key", "nonce"}, "copydbgetnonce": {"key", "nonce"}, "copydbsaslstart": {"payload"},
	"donorstartmigration": {"privatekey"}, "recipientsyncdata": {"privatekey"}, "donorforgetmigration": {"privatekey"},
	"recipientforgetmigration":        {"privatekey"},
	"compactstructuredencryptiondata": {"compactiontokens"}, "cleanupstructuredencryptiondata": {"cleanuptokens"},
}

// telling are parts of names of settings that are secrets: ldapQueryPassword, tlsClusterPassword, awsSecretAccessKey …
var telling = []string{"password", "passwd", "passphrase", "pwd", "secret", "token", "credential", "privatekey"}

// settings are the commands whose fields are settings.
var settings = map[string]bool{"setparameter": true, "setclusterparameter": true}

// hider says which fields of a command are secrets.
type hider struct {
	fields   []string
	settings bool
	users    bool // it may write what users' passwords are checked by
}

func (m *Message) hides() hider {
	name, value := m.Name()
	low := strings.ToLower(name)
	return hider{fields: secrets[low], settings: settings[low], users: low == "applyops" || low == "bulkwrite" || strings.HasPrefix(low, "_mergeauthz") ||
		strings.HasPrefix(value.Str(), "system.users") || strings.HasPrefix(value.Str(), "system.backup_users")}
}

// any reports whether the command is one of those that have secrets.
func (h hider) any() bool { return len(h.fields) > 0 || h.settings || h.users }

// hides reports whether a field's value is a secret. A password beside the command's name is one whatever the command, for
// it may be misspelt; what lies deeper is data.
func (h hider) hides(name string, depth int) bool {
	low := strings.ToLower(name)
	if depth == 1 && (low == "pwd" || low == "password") {
		return true
	}
	for _, f := range h.fields {
		if low == f {
			return true
		}
	}
	if h.users && (low == "credentials" || strings.HasPrefix(low, "credentials.")) {
		return true
	}
	for _, t := range telling {
		if h.settings && strings.Contains(low, t) {
			return true
		}
	}
	return false
}

// maskAddresses masks passwords in connection strings: scheme://user:password@hosts, as many as there are.
func maskAddresses(s string) (string, bool) {
	var b strings.Builder
	rest, had := s, false
	for {
		i := strings.Index(rest, "://")
		if i < 0 {
			break
		}
		b.WriteString(rest[:i+3])
		rest = rest[i+3:]
		end := strings.IndexAny(rest, "/?# \t\r\n\"'<>")
		if end < 0 {
			end = len(rest)
		}
		at := strings.LastIndexByte(rest[:end], '@')
		if at < 0 && end == len(rest) { // cut in its midst, or none
			at = end
		}
		colon := strings.IndexByte(rest[:max(at, 0)], ':')
		if at < 0 || colon < 0 || at == end && port(rest[colon+1:end]) {
			continue
		}
		b.WriteString(rest[:colon+1] + Masked)
		rest, had = rest[at:], true
	}
	if !had {
		return s, false
	}
	b.WriteString(rest)
	return b.String(), true
}

// port reports whether what stands behind a colon is a port, or hosts with ports: no password.
func port(s string) bool {
	first, _, _ := strings.Cut(s, ",")
	for i := range len(first) {
		if first[i] < '0' || first[i] > '9' {
			return false
		}
	}
	return len(first) <= 5
}
