//go:build linux

package tctl_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/store"
	"github.com/sallyport/sallyport/internal/store/sqlite"
)

type deviceRow struct {
	AssetTag string `json:"asset_tag"`
	OS       string `json:"os_type"`
	DeviceID string `json:"device_id"`
	Owner    string `json:"owner"`
}

func (w *world) devices() []deviceRow {
	w.t.Helper()
	var rows []deviceRow
	if err := json.Unmarshal([]byte(w.ok("devices", "ls", "--format=json")), &rows); err != nil {
		w.t.Fatal(err)
	}
	return rows
}

func TestDevices(t *testing.T) {
	w := newWorld(t)
	if out := w.ok("devices", "ls"); out != "No devices found\n" {
		t.Error(out)
	}
	if out := w.ok("devices", "add", "--os=linux", "--asset-tag= c00aa0aaaa0a "); out != "Device C00AA0AAAA0A/Linux added to the inventory\n" {
		t.Error(out)
	}
	w.fails(1, "already registered", "devices", "add", "--os=linux", "--asset-tag=C00AA0AAAA0A")
	out := w.ok("devices", "add", "--os=macos", "--asset-tag=C00AA0AAAA0A", "--owner=alice", "--enroll", "--enroll-ttl=30m")
	has(t, out, "Device C00AA0AAAA0A/macOS added to the inventory\n", "[valid for 30m0s]")
	token := regexp.MustCompile(`(?m)^tsh device enroll --token=(\S+)$`).FindStringSubmatch(out)
	if token == nil {
		t.Fatalf("no command in\n%s", out)
	}
	has(t, w.ok("devices", "ls"), "Asset Tag    OS    Source Enroll Status Attestation Owner Device ID\n", "C00AA0AAAA0A macOS tctl   not_enrolled              alice ")
	for _, verb := range []string{"rm", "enroll", "lock", "unenroll"} {
		w.fails(1, `found multiple devices for asset tag "C00AA0AAAA0A", please retry using the device ID instead`, "devices", verb, "--asset-tag=c00aa0aaaa0a")
		w.fails(1, `device "X1" not found`, "devices", verb, "--asset-tag=x1")
	}
	rows := w.devices()
	if len(rows) != 2 {
		t.Fatal(rows)
	}
	tokens := w.ok("devices", "tokens")
	has(t, tokens, "C00AA0AAAA0A", "alice", "system:local")
	if strings.Contains(tokens, token[1]) {
		t.Error("the listing shows the secret")
	}
	again := w.ok("devices", "enroll", "--device-id="+rows[0].DeviceID)
	has(t, again, `on device "C00AA0AAAA0A"`, "tsh device enroll --token=")
	if out := w.ok("devices", "unenroll", "--device-id="+rows[0].DeviceID); out != "Device \"C00AA0AAAA0A\" unenrolled\n" {
		t.Error(out)
	}
	lock := w.ok("devices", "lock", "--device-id="+rows[0].DeviceID, "--message=lost", "--ttl=1h")
	if !regexp.MustCompile(`^Created a lock with name "[0-9a-f-]{36}"\.\n$`).MatchString(lock) {
		t.Error(lock)
	}
	has(t, w.ok("get", "locks"), "device: "+rows[0].DeviceID, "message: lost", "expires:")
	if out := w.ok("devices", "rm", "--device-id="+rows[0].DeviceID); out != "Device \"C00AA0AAAA0A\" removed\n" {
		t.Error(out)
	}
	if out := w.ok("devices", "rm", "--asset-tag=C00AA0AAAA0A"); out != "Device \"C00AA0AAAA0A\" removed\n" {
		t.Error("what is the only one now: " + out)
	}
	w.fails(1, "not found", "devices", "rm", "--device-id=C00AA0AAAA0A")
}

// TestCurrentDevice reads this machine from a directory of DMI files.
func TestCurrentDevice(t *testing.T) {
	dmi := t.TempDir()
	if err := os.WriteFile(filepath.Join(dmi, "product_serial"), []byte("pf0abcde\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TSH_DMI_DIR", dmi)
	w := newWorld(t)
	if out := w.ok("devices", "add", "--current-device"); out != "Device PF0ABCDE/Linux added to the inventory\n" {
		t.Error(out)
	}
	w.ok("devices", "add", "--os=windows", "--asset-tag=PF0ABCDE")
	for _, verb := range []string{"enroll", "lock", "unenroll", "rm"} {
		w.ok("devices", verb, "--current-device")
	}
	if rows := w.devices(); len(rows) != 1 || rows[0].OS != "windows" {
		t.Errorf("another device was taken: %v", rows)
	}
	w.fails(2, "--current-device takes neither", "devices", "add", "--current-device", "--os=linux")
}

func TestLock(t *testing.T) {
	w := newWorld(t)
	w.ok("users", "add", "alice", "--roles=access")
	w.ok("users", "add", "bob", "--roles=access")
	w.ok("devices", "add", "--os=linux", "--asset-tag=T1")
	id := w.devices()[0].DeviceID
	for _, c := range []struct{ flag, shows string }{
		{"--user=alice", "user: alice"}, {"--role=editor", "role: editor"}, {"--login=root", "login: root"}, {"--mfa-device=m1", "mfa_device: m1"},
		{"--device=t1", "device: " + id}, {"--node=75df4fae-b8e2-4d25-aca4-4bd0fa67b788", "server_id: 75df4fae-b8e2-4d25-aca4-4bd0fa67b788"},
		{"--expires=2999-01-02T03:04:05Z --user=bob", `expires: "2999-01-02T03:04:05Z"`},
	} {
		out := w.ok(append([]string{"lock"}, strings.Fields(c.flag)...)...)
		m := regexp.MustCompile(`^Created a lock with name "([0-9a-f-]{36})"\.\n$`).FindStringSubmatch(out)
		if m == nil {
			t.Errorf("%s: %s", c.flag, out)
			continue
		}
		has(t, w.ok("get", "lock/"+m[1]), c.shows)
		w.ok("rm", "lock/"+m[1])
	}
	w.fails(1, `device "T2" not found`, "lock", "--device=t2")
	w.fails(1, "not found", "lock", "--node=nowhere")
}

func TestAudit(t *testing.T) {
	w := newWorld(t)
	w.ok("users", "add", "alice", "--roles=access")
	w.ok("devices", "add", "--os=linux", "--asset-tag=T1")
	ls := w.ok("audit", "ls", "--from=1h", "--event=device.create", "--device=T1")
	has(t, ls, "Time", "TV001I device.create system:local T1     device/")
	if strings.Contains(ls, "user.create") || strings.Contains(w.ok("audit", "ls", "--to=1h"), "user.create") {
		t.Error("a filter is not held")
	}
	var events []map[string]any
	if err := json.Unmarshal([]byte(w.ok("audit", "ls", "--format=json", "--event=user.create")), &events); err != nil || len(events) != 1 || events[0]["code"] != "T1002I" {
		t.Error(err, events)
	}
	if lines := strings.Count(w.ok("audit", "ls", "--limit=2"), "\n"); lines != 4 {
		t.Errorf("%d lines with --limit=2", lines)
	}
	for line := range strings.Lines(w.ok("audit", "export")) {
		if !json.Valid([]byte(line)) {
			t.Errorf("not a line of JSON: %s", line)
		}
	}
	head := filepath.Join(t.TempDir(), "head.json")
	has(t, w.ok("audit", "verify", "--save-head="+head), "The audit log is intact: ")
	w.ok("users", "add", "bob", "--roles=access")
	has(t, w.ok("audit", "verify", "--head="+head), "The audit log is intact: ")
	if info, err := os.Stat(head); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(err)
	}
	w.fails(1, "--head", "audit", "verify", "--head=/nowhere")

	other := newWorld(t)
	other.fails(1, "the list of heads is not one that this cluster signed", "audit", "verify", "--head="+head)
}

// TestAuditDamage takes an event out of the store behind the daemon's back.
func TestAuditDamage(t *testing.T) {
	w := newWorld(t)
	w.ok("users", "add", "alice", "--roles=access")
	w.ok("audit", "verify")
	w.stop()
	ctx := context.Background()
	s, err := sqlite.Open(ctx, sqlite.Config{Dir: filepath.Join(w.dir, "state"), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	page, err := s.List(ctx, store.Range{Prefix: "audit/entry/", Limit: 10})
	if err != nil || len(page.Records) < 5 {
		t.Fatal(err, len(page.Records))
	}
	if _, err := s.Txn(ctx, []store.Op{store.Delete(page.Records[3].Key)}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	w.start()
	defer w.stop()
	bad := filepath.Join(t.TempDir(), "head.json")
	r := w.fails(1, "the audit log is not intact", "audit", "verify", "--save-head="+bad)
	if strings.Contains(r.out, "is intact") || !regexp.MustCompile(`(?m)^[0-9a-f-]{36} \d+: `).MatchString(r.out) {
		t.Errorf("findings are not named: %s", r.out)
	}
	if _, err := os.Stat(bad); err == nil {
		t.Error("the heads of a log that is not intact were saved")
	}
	var v struct{ Intact bool }
	if r := w.run("", "audit", "verify", "--format=json"); r.code != 1 || json.Unmarshal([]byte(r.out), &v) != nil || v.Intact {
		t.Errorf("status %d\n%s", r.code, r.out)
	}
}
