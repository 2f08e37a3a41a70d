package manifest

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/role"
)

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"unknown field", "kind: role\nversion: v7\nmetadata: {name: a}\nspec:\n  options:\n    device_trust_mod: required\n", `line 6: spec.options: unknown field "device_trust_mod", did you mean "device_trust_mode"?`},
		{"unknown mode", "kind: role\nversion: v7\nmetadata: {name: a}\nspec:\n  options:\n    device_trust_mode: sometimes\n", `line 6: role "a": options.device_trust_mode: unknown mode "sometimes"`},
		{"unknown kind", "kind: rolle\nversion: v7\n", `line 1: kind: unknown kind "rolle"`},
		{"a kind without a door", "kind: app\nversion: v3\n", `kind app is not enforced by this build`},
		{"wrong version", "kind: role\nversion: v6\nmetadata: {name: a}\n", `line 1: version: role is of version v7, this file says "v6"`},
		{"wrong type", "kind: user\nversion: v2\nmetadata: {name: a}\nspec:\n  roles: access\n", `line 5: spec.roles: want a list`},
		{"twice", "kind: user\nversion: v2\nmetadata: {name: a}\nspec:\n  roles: [a]\n  roles: [b]\n", `line 6: spec.roles: stands twice`},
		{"not enforced", "kind: role\nversion: v7\nmetadata: {name: a}\nspec:\n  options:\n    require_session_mfa: true\n", `options.require_session_mfa is not enforced by this build`},
		{"bad duration", "kind: role\nversion: v7\nmetadata: {name: a}\nspec: {options: {max_session_ttl: ever}}\n", `line 4: spec.options.max_session_ttl: "ever" is no duration`},
		{"control characters", "kind: user\nversion: v2\nmetadata: {name: \"a\\u001bb\"}\nspec: {roles: []}\n", `metadata.name`},
		{"look-alike letters", "kind: user\nversion: v2\nmetadata: {name: \"аlice\"}\nspec: {roles: []}\n", `metadata.name`},
		{"alias", "kind: user\nversion: v2\nmetadata: &m {name: a}\nspec: *m\n", `aliases are not taken`},
		{"malformed", "kind: [", `line 1`},
		{"nothing", "\n", `no resource in the file`},
		{"empty lock", "kind: lock\nversion: v2\nmetadata: {name: x}\nspec: {target: {}}\n", `a lock needs a target`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse(strings.NewReader(c.text))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestAllOrNone(t *testing.T) {
	if list, err := Parse(strings.NewReader("kind: user\nversion: v2\nmetadata: {name: a}\nspec: {roles: []}\n---\nkind: user\nversion: v3\n")); err == nil || list != nil {
		t.Fatalf("took %v", list)
	}
}

// TestGuide reads the user file as the guide shows it, metadata.id included.
func TestGuide(t *testing.T) {
	list, err := Parse(strings.NewReader(`kind: user
metadata:
  id: 1692716146877042322
  name: myuser
spec:
  created_by:
    time: "2023-08-14T13:42:22.291972449Z"
  expires: "0001-01-01T00:00:00Z"
  roles:
  - access
  - auditor
  - editor
  - require-trusted-device # add this line
  status:
    is_locked: false
version: v2
`))
	if err != nil {
		t.Fatal(err)
	}
	u := list[0].Spec.(*identity.Account)
	if u.Name != "myuser" || len(u.Roles) != 4 || u.CreatedBy.Time.Year() != 2023 {
		t.Fatalf("%+v", u)
	}
}

func TestPresetsRoundTrip(t *testing.T) {
	for _, r := range role.Presets() {
		raw, err := New(&r, 7).JSON()
		if err != nil {
			t.Fatal(err)
		}
		var y bytes.Buffer
		if err := WriteYAML(&y, raw); err != nil {
			t.Fatal(err)
		}
		list, err := Parse(&y)
		if err != nil {
			t.Fatalf("%v in\n%s", err, raw)
		}
		again, err := list[0].JSON()
		if err != nil || !bytes.Equal(raw, again) {
			t.Fatalf("%v\n%s\n%s", err, raw, again)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("kind: user\nversion: v2\nmetadata: {name: a}\nspec: {roles: []}\n")
	f.Add("kind: role\nversion: v7\nmetadata: {name: a}\nspec: {allow: {node_labels: {'*': '*'}}}\n")
	f.Fuzz(func(t *testing.T, s string) {
		list, err := Parse(strings.NewReader(s))
		if err != nil {
			return
		}
		for _, r := range list {
			raw, err := r.JSON()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := ParseJSON(raw); err != nil {
				t.Fatalf("%v: %s", err, raw)
			}
		}
	})
}

// TestDeviceRoundTrip writes a device with all that its logins leave in it, and reads it back as it was.
func TestDeviceRoundTrip(t *testing.T) {
	now := time.Date(2026, 2, 3, 4, 5, 6, 789, time.UTC)
	d := &device.Device{ID: "7d1f3c7e-1111-4222-8333-444455556666", OSType: device.Linux, AssetTag: "LAP", Owner: "alice", EnrollStatus: device.Enrolled,
		Credentials: []device.Credential{{ID: "c1", Owner: "alice", Kind: device.TPM2, PublicKey: []byte{1, 2}, AKArea: []byte{3}, Attestation: device.LevelTPMCert,
			EKCertSerial: "2", TPM: &device.TPMInfo{Manufacturer: "id:00001014", Firmware: "8217.4131.22.13878"},
			Clock: &device.Clock{Time: 1<<63 + 3, ResetCount: 1<<32 - 1, Firmware: 1<<53 + 1}, CreateTime: now}},
		Collected: []device.Data{{CollectTime: now, OSType: device.Linux, System: device.System{OSID: "debian", OSVersion: "12", OSBuild: "6.1", OSUsername: "root"},
			SystemSerialNumber: "0012"}},
		Health: &device.Health{Baseline: &device.Baseline{Watch: []int{0, 7}, PCRs: map[int]string{0: "00", 7: "1e3"}, Time: now},
			Boot: &device.Boot{Time: now, PCRs: map[int]string{0: "00"}, SecureBoot: new(true)}, Seen: &device.Seen{Time: now, EKCert: []byte{9}}}}
	raw, err := New(d, 7).JSON()
	if err != nil {
		t.Fatal(err)
	}
	var y bytes.Buffer
	if err := WriteYAML(&y, raw); err != nil {
		t.Fatal(err)
	}
	text := y.String()
	list, err := Parse(&y)
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	again, err := list[0].JSON()
	if err != nil || !bytes.Equal(raw, again) {
		t.Fatalf("%v\n%s\n%s", err, raw, again)
	}
}
