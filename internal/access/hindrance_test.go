package access

import (
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/lock"
	"github.com/sallyport/sallyport/internal/role"
)

// TestHindrances names every rule that a device does not satisfy, each once, with what mends it.
func TestHindrances(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	policy := func(name string, o role.Options) *Policy {
		t.Helper()
		p, err := Compile(role.Role{Name: name, Options: o})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	roles := map[string]*Policy{
		"access":   policy("access", role.Options{}),
		"required": policy("required", role.Options{DeviceTrustMode: device.ModeRequired}),
		"strong":   policy("strong", role.Options{DeviceRequirements: &role.Requirements{Attestation: []device.Level{device.LevelTPMTrusted}, SecureBoot: true}}),
		"other":    policy("other", role.Options{DeviceTrustMode: device.ModeRequired}),
	}
	on := true
	dev := func(l device.Level) *identity.Device {
		return &identity.Device{ID: "d", AssetTag: "T", CredentialID: "c", Level: l, Claims: device.Claims{SecureBoot: &on}}
	}
	settings := func(m device.Mode) cluster.Settings {
		var s cluster.Settings
		s.DeviceTrust.Mode = m
		return s
	}
	locked := lock.NewSet(lock.Lock{Name: "l1", Target: lock.Target{Device: "d"}})
	for _, r := range []struct {
		name  string
		roles []string
		dev   *identity.Device
		mode  device.Mode
		locks lock.Set
		want  []string // the causes, in order
	}{
		{"nothing demands", []string{"access"}, nil, device.ModeOptional, lock.Set{}, nil},
		{"a role requires", []string{"access", "required"}, nil, device.ModeOptional, lock.Set{}, []string{`role "required" requires a trusted device`}},
		{"two roles and the cluster", []string{"required", "strong"}, nil, device.ModeRequired, lock.Set{},
			[]string{"the cluster's device_trust.mode requires", `role "required" requires`, `role "strong" requires`}},
		{"a weak device", []string{"required", "strong"}, dev(device.LevelTPMPub), device.ModeOptional, lock.Set{},
			[]string{`role "strong" requires attestation`}},
		{"a strong device", []string{"required", "strong"}, dev(device.LevelTPMTrusted), device.ModeRequired, lock.Set{}, nil},
		{"another's role", []string{"access"}, nil, device.ModeOptional, lock.Set{}, nil},
		{"a lock", []string{"required"}, dev(device.LevelTPMTrusted), device.ModeOptional, locked, []string{"lock l1"}},
	} {
		who := &identity.User{Name: "alice", Roles: r.roles, Device: r.dev, KeyPolicy: identity.KeyHardware, Validity: identity.Validity{IssuedAt: now, Expires: now.Add(time.Hour)}}
		got := Hindrances(Input{Identity: who, Roles: roles, Locks: r.locks, Settings: settings(r.mode), Now: now})
		if len(got) != len(r.want) {
			t.Errorf("%s: %d hindrances %+v, want %d", r.name, len(got), got, len(r.want))
			continue
		}
		for i, f := range got {
			if !strings.Contains(f.Cause, r.want[i]) || f.Fix == "" {
				t.Errorf("%s: %+v, want %s", r.name, f, r.want[i])
			}
		}
	}
	if len(Hindrances(Input{Now: now})) != 1 {
		t.Error("nobody is hindered by nothing")
	}
}
