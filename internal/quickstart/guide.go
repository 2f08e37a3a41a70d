package quickstart

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sallyport/sallyport/internal/fault"
)

// guide plays the guide's steps in their order.
func (p *play) guide(ctx context.Context) error {
	for _, part := range []func(context.Context) error{p.before, p.enforce, p.refused, p.enroll, p.trusted} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (p *play) tsh(ctx context.Context, want expected, args ...string) error {
	_, err := p.do(ctx, want, "tsh", args...)
	return err
}

func (p *play) tctl(ctx context.Context, want expected, args ...string) error {
	_, err := p.do(ctx, want, "tctl", args...)
	return err
}

func (p *play) target() string { return p.login + "@" + nodeName }

// before is the guide's prerequisites: a user with access, and a node to reach.
func (p *play) before(ctx context.Context) error {
	p.title("A user, and a node that the user may reach")
	add := []string{"users", "add", person, "--roles=access,auditor,editor", "--logins=" + p.login}
	steps := []func() error{
		func() error { return p.tctl(ctx, expected{holds: "Sallyport v"}, "version") },
		func() error { return p.tsh(ctx, expected{holds: "Sallyport v"}, "version") },
		func() error {
			return p.tctl(ctx, expected{input: p.password + "\n", shown: "tctl " + strings.Join(add, " ") + " --password-file=-"}, append(add, "--password-file=-")...)
		},
		func() error {
			return p.tsh(ctx, expected{input: p.password + "\n", holds: "Logged in as"}, "login", "--proxy="+p.proxy, "--ca-pin="+p.pin, "--user="+person)
		},
		func() error { return p.awaitNode(ctx) },
		func() error { return p.tsh(ctx, expected{holds: nodeName}, "ls") },
		func() error { return p.tsh(ctx, expected{holds: p.login}, "ssh", p.target(), "id", "-un") },
	}
	return inOrder(steps)
}

func inOrder(steps []func() error) error {
	for _, s := range steps {
		if err := s(); err != nil {
			return err
		}
	}
	return nil
}

// awaitNode waits, unseen, until the node is listed: it joins while the first commands run.
func (p *play) awaitNode(ctx context.Context) error {
	out := p.Out
	defer func() { p.Out = out }()
	for range 100 {
		var quiet bytes.Buffer
		p.Out = &quiet
		if err := p.tsh(ctx, expected{holds: nodeName}, "ls"); err == nil {
			return nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return fault.New(fault.Unavailable, "the node did not join")
}

// enforce is step 1 of the guide: the user gets the role that requires a trusted device.
func (p *play) enforce(ctx context.Context) error {
	p.title("Update the user profile to enforce Device Trust")
	if p.tpm.path == "" {
		if err := p.allowSoftware(ctx); err != nil {
			return err
		}
	}
	raw, err := p.do(ctx, expected{holds: "kind: user", shown: "tctl get users/" + person + " > myuser.yaml"}, "tctl", "get", "users/"+person)
	if err != nil {
		return err
	}
	edited := addRole(string(raw), "require-trusted-device")
	fmt.Fprintln(p.Out, "Edit the profile: under roles, this line is added:\n+   - require-trusted-device")
	fmt.Fprintln(p.Out)
	if err := os.WriteFile(filepath.Join(p.dir, "myuser.yaml"), []byte(edited), 0o600); err != nil {
		return err
	}
	return p.tctl(ctx, expected{holds: `user "myuser" has been updated`}, "create", "-f", "myuser.yaml")
}

// addRole puts a role at the end of a user's roles.
func addRole(yaml, role string) string {
	var out []string
	inRoles := false
	for line := range strings.SplitSeq(yaml, "\n") {
		item := strings.HasPrefix(strings.TrimSpace(line), "- ")
		if inRoles && !item {
			out = append(out, "    - "+role)
			inRoles = false
		}
		if strings.TrimSpace(line) == "roles:" {
			inRoles = true
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

// allowSoftware lets this cluster take a key file as a device: the machine has no TPM and no emulator.
func (p *play) allowSoftware(ctx context.Context) error {
	fmt.Fprintln(p.Out, "This machine has no TPM and no swtpm, so the cluster is told to take a software key:")
	for _, f := range []struct{ kind, from, to string }{
		{"cap", "  device_trust:", "  device_trust:\n    allow_software_keys: true"},
		{"role/require-trusted-device", "    device_trust_mode: required", "    device_trust_mode: required\n    device_requirements: {attestation: [software]}"},
	} {
		raw, err := p.do(ctx, expected{holds: f.from, shown: "tctl get " + f.kind + " > edit.yaml"}, "tctl", "get", f.kind)
		if err != nil {
			return err
		}
		text := strings.Replace(string(raw), f.from, f.to, 1)
		if err := os.WriteFile(filepath.Join(p.dir, "edit.yaml"), []byte(text), 0o600); err != nil {
			return err
		}
		fmt.Fprintf(p.Out, "Edit it, adding:\n+ %s\n\n", strings.TrimSpace(strings.TrimPrefix(f.to, f.from)))
		if err := p.tctl(ctx, expected{holds: "has been updated"}, "create", "-f", "edit.yaml"); err != nil {
			return err
		}
	}
	return nil
}

func (p *play) relogin(ctx context.Context) error {
	if err := p.tsh(ctx, expected{}, "logout"); err != nil {
		return err
	}
	return p.tsh(ctx, expected{input: p.password + "\n", holds: "Logged in as"}, "login", "--user="+person)
}

// refused is the end of step 1: what was reachable is forbidden.
func (p *play) refused(ctx context.Context) error {
	p.title("The test server is now refused without a trusted device")
	if err := p.relogin(ctx); err != nil {
		return err
	}
	return p.tsh(ctx, expected{code: 255, holds: "ERROR: access denied to " + p.login + " connecting to " + nodeName + ":0"}, "ssh", p.target(), "id", "-un")
}

// enroll is step 2 of the guide.
func (p *play) enroll(ctx context.Context) error {
	p.title("Enroll the device")
	return p.tsh(ctx, expected{holds: "registered and enrolled"}, "device", "enroll", "--current-device")
}

// trusted is the end of the guide: the login carries the device, and the server is reachable again.
func (p *play) trusted(ctx context.Context) error {
	p.title("Log in again, and reach the server from the trusted device")
	if err := p.relogin(ctx); err != nil {
		return err
	}
	if err := p.tsh(ctx, expected{holds: "teleport-device-asset-tag, teleport-device-credential-id, teleport-device-id"}, "status"); err != nil {
		return err
	}
	if err := p.tsh(ctx, expected{holds: p.login}, "ssh", p.target(), "id", "-un"); err != nil {
		return err
	}
	return p.tctl(ctx, expected{holds: "enrolled"}, "devices", "ls")
}
