//go:build linux

package tctl_test

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/client"
	"github.com/sallyport/sallyport/internal/tctl/tool"
)

func TestUsage(t *testing.T) {
	w := &world{t: t, env: map[string]string{"HOME": t.TempDir()}}
	for _, c := range []struct {
		name, line, says string
		code             int
	}{
		{"unknown command", "frobnicate", `unknown command "frobnicate"`, 2},
		{"unknown subcommand", "users frobnicate", `unknown command "frobnicate"`, 2},
		{"unknown flag", "users ls --frob", "unknown flag: --frob", 2},
		{"argument missing", "users add", "usage: tctl users add NAME", 2},
		{"argument too many", "users rm a b", "usage: tctl users rm NAME", 2},
		{"no argument to get", "get", "usage: tctl get", 2},
		{"no roles", "users add alice", "--roles must be set", 2},
		{"bad name", "users add al,ice --roles=a", "metadata.name", 1},
		{"bad format", "users ls --format=xml", `--format: "xml" is none of text, json, yaml`, 2},
		{"unknown kind", "get rolles", `unknown kind "rolles"`, 1},
		{"kind without a door", "get app", "kind app is not enforced by this build", 1},
		{"rm of a kind", "rm role", "tctl rm role/NAME", 2},
		{"edit of a kind", "edit role", "tctl edit role/NAME", 2},
		{"no device named", "devices rm", "either --device-id or --asset-tag must be set", 2},
		{"two devices named", "devices rm --asset-tag=a --device-id=b", "only one of", 2},
		{"add without a system", "devices add --asset-tag=a", "--os and --asset-tag must be set", 2},
		{"add of an unknown system", "devices add --os=plan9 --asset-tag=a", `--os: "plan9"`, 2},
		{"lock of nothing", "lock", "must be set", 2},
		{"lock with two ends", "lock --user=a --ttl=1h --expires=2999-01-01", "only one of --ttl and --expires", 2},
		{"lock that is over", "lock --user=a --expires=2001-01-01", "no time to come", 2},
		{"token for nothing", "tokens add", "--type must be set", 2},
		{"token for what is no host", "tokens add --type=auth", `--type: "auth" is none of`, 2},
		{"token that is over", "tokens add --type=node --ttl=-1h", "--ttl", 2},
		{"events of no time", "audit ls --from=yesterday", "--from", 2},
		{"export as something else", "audit export --format=xml", "jsonl", 2},
		{"explain without a user", "access explain --resource=role", "--user and --resource must be set", 2},
		{"explain of a database for nobody there", "access explain --user=alice --resource=db/orders", "--db-user must be set", 2},
		{"file that is not there", "create -f nowhere.yaml", "nowhere.yaml", 1},
		{"completion for another shell", "completion tcsh", `"tcsh" is none of bash, zsh, fish`, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.t = t
			w.fails(c.code, c.says, strings.Fields(c.line)...)
		})
	}
}

// TestNoCluster shows the ways to a cluster: the socket, else the login, with a line where the socket is there and
// does not open.
func TestNoCluster(t *testing.T) {
	dir := t.TempDir()
	w := &world{t: t, env: map[string]string{"SALLYPORT_DATA_DIR": dir, "HOME": dir}}
	r := w.fails(1, "no cluster to talk to", "users", "ls")
	has(t, r.err, filepath.Join(dir, "admin.sock"), "there is no tsh login", "--data-dir=DIR", "tsh login")
	if strings.Contains(r.err, "using the tsh login") {
		t.Errorf("where there is no socket nothing is said of it:\n%s", r.err)
	}

	l, err := net.Listen("unix", filepath.Join(dir, "admin.sock"))
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close() // the file stays, as after a crash
	r = w.fails(1, "no cluster to talk to", "users", "ls")
	first, _, _ := strings.Cut(r.err, "\n")
	has(t, first, "admin.sock cannot be opened", "using the tsh login")

	real := newWorld(t)
	logins := 0
	w.login = func(context.Context) (*client.Cluster, error) {
		logins++
		return client.Local(real.state.Socket), nil
	}
	r = w.run("", "devices", "ls")
	if r.code != 0 || r.out != "No devices found\n" || logins != 1 || strings.Count(r.err, "\n") != 1 {
		t.Errorf("status %d after %d logins\n%s%s", r.code, logins, r.out, r.err)
	}
	if real.ok("devices", "ls"); logins != 1 {
		t.Error("a login was used where the socket opens")
	}
	w.login = func(context.Context) (*client.Cluster, error) { return nil, tool.ErrNoLogin }
	w.fails(1, "there is no tsh login", "users", "ls")
	w.env["SALLYPORT_DATA_DIR"] = "/nowhere"
	w.ok("version")
	if out := w.ok("--data-dir", real.dir, "devices", "ls"); out != "No devices found\n" {
		t.Errorf("--data-dir does not count before the environment: %s", out)
	}
}

func TestDebugPrintsCauses(t *testing.T) {
	w := &world{t: t, env: map[string]string{"HOME": t.TempDir()}}
	w.login = func(context.Context) (*client.Cluster, error) {
		return nil, os.NewSyscallError("connect", os.ErrPermission)
	}
	if r := w.run("", "status"); strings.Contains(r.err, "DEBUG") {
		t.Errorf("causes without --debug:\n%s", r.err)
	}
	has(t, w.run("", "--debug", "status").err, "ERROR: connect: permission denied", "DEBUG:")
}

func TestCompletion(t *testing.T) {
	w := &world{t: t, env: map[string]string{"HOME": t.TempDir()}}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		has(t, w.ok("completion", shell), "tctl")
	}
}

func TestStatus(t *testing.T) {
	w := newWorld(t)
	r := w.run("", "status")
	has(t, r.out, "Cluster:        example.com\n", "CA pin:         sha256:", "Device trust:   optional\n", "Second factors: otp\n")
	has(t, r.err, "WARNING: a trusted device is required (by role require-trusted-device) and no EK authority is listed")
	r = w.run("", "status", "--format=json")
	var st struct {
		CAPin    string   `json:"ca_pin"`
		Warnings []string `json:"warnings"`
	}
	if err := json.Unmarshal([]byte(r.out), &st); err != nil || st.CAPin != w.state.CAPin || len(st.Warnings) != 1 || r.err != "" {
		t.Errorf("%v: %s%s", err, r.out, r.err)
	}
}

var inviteCommand = regexp.MustCompile(`(?m)^tsh login --proxy=\S+ --ca-pin=sha256:[0-9a-f]{64} --user=(\S+) --invite=(\S+)$`)

func TestUsers(t *testing.T) {
	w := newWorld(t)
	out := w.ok("users", "add", "alice", "--roles=access,auditor", "--logins=root,ubuntu", "--db-users=reader", "--db-names=orders",
		"--kubernetes-groups=dev", "--kubernetes-users=alice")
	m := inviteCommand.FindStringSubmatch(out)
	if m == nil || m[1] != "alice" {
		t.Fatalf("no command in\n%s", out)
	}
	has(t, out, "works once", "[valid for 1h0m0s]")
	if again := w.ok("get", "user/alice", "--format=json"); strings.Contains(again, m[2]) {
		t.Error("the invite is shown again")
	}
	has(t, w.ok("get", "users/alice"), "logins:\n      - root\n      - ubuntu\n", "db_users:\n      - reader", "db_names:\n      - orders",
		"kubernetes_groups:\n      - dev", "kubernetes_users:\n      - alice", "user: system:local")
	w.fails(1, `user "alice" already exists`, "users", "add", "alice", "--roles=access")
	w.fails(1, `role "nope" not found`, "users", "add", "bob", "--roles=nope")

	if r := w.run("correct horse battery\n", "users", "add", "carol", "--roles=access", "--password-file=-"); r.code != 0 || r.out != "User \"carol\" has been created.\n" {
		t.Errorf("status %d\n%s%s", r.code, r.out, r.err)
	}
	if r := w.run("\n", "users", "add", "dave", "--roles=access", "--password-file=-"); r.code != 1 || !strings.Contains(r.err, "no password in the first line") {
		t.Errorf("an empty password: status %d %s", r.code, r.err)
	}
	has(t, w.ok("users", "ls"), "User  Roles          Logins      Status\n", "alice access,auditor root,ubuntu active\n", "carol access")
	out = w.ok("users", "reset", "alice")
	if again := inviteCommand.FindStringSubmatch(out); again == nil || again[2] == m[2] {
		t.Errorf("no fresh invite in\n%s", out)
	}
	has(t, w.ok("get", "locks"), "user: alice", "issued_before:")
	if out := w.ok("users", "rm", "alice"); out != "User \"alice\" has been removed\n" {
		t.Error(out)
	}
	w.fails(1, `user "alice" not found`, "users", "rm", "alice")
}

func TestTokens(t *testing.T) {
	w := newWorld(t)
	out := w.ok("tokens", "add", "--type=node", "--name=web-1", "--ttl=2h")
	m := regexp.MustCompile(`(?m)^sallyport start --roles=node --token=(\S+) --proxy=\S+ --ca-pin=sha256:[0-9a-f]{64}$`).FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("no command in\n%s", out)
	}
	has(t, out, "[valid for 2h0m0s]")
	has(t, w.ok("tokens", "add", "--type=proxy"), "sallyport start --roles=proxy --token=", " --auth=HOST:3025 --ca-pin=sha256:")
	ls := w.ok("tokens", "ls")
	has(t, ls, "Token ID", "node", "web-1")
	if strings.Contains(ls+w.ok("get", "tokens"), m[1]) {
		t.Error("a listing shows the secret")
	}
	var rows []struct{ ID, Name string }
	if err := json.Unmarshal([]byte(w.ok("tokens", "ls", "--format=json")), &rows); err != nil || len(rows) != 2 {
		t.Fatal(err, rows)
	}
	for _, r := range rows {
		w.ok("tokens", "rm", r.ID)
	}
	w.fails(1, "not found", "tokens", "rm", rows[0].ID)
}

func TestAuthExport(t *testing.T) {
	w := newWorld(t)
	has(t, w.ok("auth", "export"), "# ssh-user\necdsa-sha2-nistp256 ", "# ssh-host\n@cert-authority * ", "# tls-host\n-----BEGIN CERTIFICATE-----", "# audit-heads\n-----BEGIN PUBLIC KEY-----")
	if out := w.ok("auth", "export", "--type=ssh-user"); !strings.HasPrefix(out, "ecdsa-sha2-nistp256 ") || strings.Count(out, "\n") != 1 {
		t.Error(out)
	}
	w.fails(2, `--type: "x" is none of audit-heads, dial-tickets`, "auth", "export", "--type=x")
}

func TestExplain(t *testing.T) {
	w := newWorld(t)
	w.ok("users", "add", "alice", "--roles=editor")
	has(t, w.ok("access", "explain", "--user=alice", "--resource=role", "--verb=update"), `allowed by role "editor"`, `without role "editor" it would be refused`)
	w.ok("users", "add", "bob", "--roles=access")
	has(t, w.ok("access", "explain", "--user=bob", "--resource=roles"), "refused (not_granted)", `giving the user role "editor"`)
	w.fails(1, `"nobody" not found`, "access", "explain", "--user=nobody", "--resource=role")
}

// TestEscapes holds that what others wrote cannot reach a terminal as it is.
func TestEscapes(t *testing.T) {
	w := newWorld(t)
	w.ok("users", "add", "mallory", "--roles=access")
	w.ok("lock", "--user=mallory", "--message=\x1b[2J\x1b]0;owned\x07")
	for _, args := range [][]string{{"get", "locks", "--format=text"}, {"get", "locks"}, {"audit", "ls"}, {"get", "user/\x1b[2J"}} {
		if r := w.run("", args...); strings.ContainsAny(r.out+r.err, "\x1b\x07") {
			t.Errorf("%q: an escape came through: %q", args, r.out+r.err)
		}
	}
}
