package access

import (
	"fmt"
	"strings"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/target"
)

// enrollFix is what a person without a device proof can do about it.
const enrollFix = "tsh device enroll --current-device   (or ask a device admin for an enrollment token)"

// Refusal words a decision for the person who asked: which rule refused and what to type next. It returns nil for a
// decision that allows.
func Refusal(d Decision, in Input) *fault.Error {
	if d.Allowed {
		return nil
	}
	f := &fault.Error{Kind: fault.Denied, Reason: string(d.Reason), Text: headline(d, in)}
	if f.Reason == "" {
		f.Reason = string(NoIdentity)
	}
	f.Cause, f.Fix = cause(d, in)
	return f
}

// headline is the first line, in the words of the guide.
func headline(d Decision, in Input) string {
	if d.Reason == Locked {
		return fmt.Sprintf("lock targeting %s is in force", d.Source.Detail)
	}
	deviceBound := d.Reason == NoDevice || d.Reason == SoftwareDevice || d.Reason == WeakDevice
	switch in.Target.Kind {
	case target.Node:
		if deviceBound && d.Source.Kind == FromCluster {
			return "unauthorized device"
		}
		return fmt.Sprintf("access denied to %s connecting to %s:0", in.Action.Login, in.Target.Name)
	case target.Administration:
		if deviceBound {
			return "access to resource requires a trusted device"
		}
		return fmt.Sprintf("access denied: %s on %s", in.Action.Verb, in.Target.Name)
	}
	if deviceBound {
		return "access to resource requires a trusted device"
	}
	return fmt.Sprintf("access denied to %s %q", in.Target.Kind, in.Target.Name)
}

func cause(d Decision, in Input) (cause, fix string) {
	rule := fmt.Sprintf("role %q", d.Source.Name)
	if d.Source.Kind == FromCluster {
		rule = "the cluster's device_trust.mode"
	}
	switch d.Reason {
	case NoDevice:
		return rule + " requires a trusted device, and this login carries no device proof", enrollFix
	case SoftwareDevice:
		return rule + " does not accept a software key as a trusted device",
			"log in on a device with a TPM or Secure Enclave, or let a role list software in device_requirements.attestation"
	case WeakDevice:
		fix := "tsh device status"
		if p := in.Roles[d.Source.Name]; p != nil && p.options.DeviceRequirements != nil && in.Identity.Device != nil {
			fix = remedies(p.unmet(in.Identity.Device, in.Identity.KeyPolicy))
		}
		return rule + " requires " + d.Source.Detail, fix
	case Locked:
		if d.Source.Message != "" {
			return fault.Plain(d.Source.Message), "ask an administrator: tctl rm lock/" + d.Source.Name
		}
		return fmt.Sprintf("lock %s", d.Source.Name), "ask an administrator: tctl rm lock/" + d.Source.Name
	case DeniedByRole:
		return rule + " denies it", ""
	case NotGranted:
		return notGranted(in)
	case WrongAddress:
		if d.Source.Kind == FromRole {
			return rule + " wants logins pinned to their address", "tsh logout; tsh login"
		}
		return "this login is " + d.Source.Detail + ", and the connection comes from " + in.Action.From.String(), "tsh login"
	case ExpiredLogin:
		return "the login has expired", "tsh login"
	}
	return "no identity that this build can judge", "tsh login"
}

// notGranted says what no role grants.
func notGranted(in Input) (cause, fix string) {
	ask := fmt.Sprintf("ask an administrator: tctl access explain --user=%s --resource=%s/%s", in.Identity.Name, in.Target.Kind, in.Target.Name)
	switch in.Target.Kind {
	case target.Node:
		ask += flag("login", in.Action.Login)
		return fmt.Sprintf("none of the roles of %s grants login %q on this node", in.Identity.Name, in.Action.Login), ask
	case target.Administration:
		return fmt.Sprintf("none of the roles of %s has a rule for %s on %s", in.Identity.Name, in.Action.Verb, in.Target.Name), ""
	}
	if o := in.Action.Kube; in.Target.Kind == target.Kube && o != nil {
		return fmt.Sprintf("none of the roles of %s grants %s of %s", in.Identity.Name, in.Action.Verb, o), ask
	}
	if in.Target.Kind == target.Database && in.Action.DBUser != "" {
		what := fmt.Sprintf("database user %q", in.Action.DBUser)
		if in.Action.DBName != "" {
			what += fmt.Sprintf(" in %q", in.Action.DBName)
		}
		if in.Action.Verb == target.Replicate {
			what += fmt.Sprintf(" with replication (db_names: [%s])", target.Replication)
		}
		ask += flag("db-user", in.Action.DBUser) + flag("db-name", in.Action.DBName)
		return fmt.Sprintf("none of the roles of %s grants %s", in.Identity.Name, what), ask
	}
	return fmt.Sprintf("none of the roles of %s grants this", in.Identity.Name), ask
}

// flag is one of a command to type, with a name that somebody else chose; nothing where a shell would read that as more than a name.
func flag(name, value string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-@+:/%", r)
	}
	if value == "" || strings.ContainsFunc(value, func(r rune) bool { return !plain(r) }) {
		return ""
	}
	return " --" + name + "=" + value
}
