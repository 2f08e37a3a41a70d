// Package access decides who may do what where: the only place that says yes.
//
// A decision is made from values alone, in this order, and the first refusal stands:
//
//  1. the identity names somebody and has not expired;
//  2. no lock that is in force matches identity, target and login;
//  3. no role's deny side matches the target and the action;
//  4. some role's allow side grants the action on the target;
//  5. the device modes of the cluster and of every role that matches the target are met, the strictest deciding;
//  6. the device requirements of every role that matches the target are met;
//  7. where a matching role pins addresses, the login is pinned and comes from its address.
//
// A role matches a target when its allow side selects the resource by its labels, or names its kind in a rule,
// whatever login, database user or verb is asked for. A predicate (`where`) is CEL over user and resource.
package access

import (
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/lock"
	"github.com/sallyport/sallyport/internal/role"
	"github.com/sallyport/sallyport/internal/target"
)

// Input is everything that a decision depends on. Roles holds the roles by name; a role that an identity names and
// that is not there grants nothing.
type Input struct {
	Identity *identity.User
	Target   target.Target
	Action   target.Action
	Roles    map[string]*Policy
	Locks    lock.Set
	Settings cluster.Settings
	Now      time.Time
}

// Reason is a refusal's stable word.
type Reason string

// The reasons. The empty one is that of the zero Decision, which refuses.
const (
	Granted        Reason = "granted"
	NoIdentity     Reason = "no_identity"
	ExpiredLogin   Reason = "expired"
	Locked         Reason = "locked"
	DeniedByRole   Reason = "denied"
	NotGranted     Reason = "not_granted"
	NoDevice       Reason = "device_required"
	WeakDevice     Reason = "device_requirements"
	SoftwareDevice Reason = "software_device"
	WrongAddress   Reason = "source_ip"
)

// SourceKind is what kind of thing decided.
type SourceKind string

// The sources.
const (
	FromNobody  SourceKind = ""
	FromRole    SourceKind = "role"
	FromLock    SourceKind = "lock"
	FromCluster SourceKind = "cluster"
	FromLogin   SourceKind = "login"
)

// Source is the role, lock or setting that decided. Detail says what of it, Message what an administrator wrote there
// for the person to read.
type Source struct {
	Kind    SourceKind
	Name    string
	Detail  string
	Message string
}

// Limits are what an admitted session must keep to. Zero durations mean none. Strict is whether the session ends
// when the picture grows too old.
type Limits struct {
	IdleTimeout           time.Duration
	MaxTTL                time.Duration
	DisconnectExpiredCert bool
	Strict                bool
	PTY                   bool
	PortForwarding        bool
	AgentForwarding       bool
	// CreateDBUser is that the database user is made on demand, with the database's roles in DBRoles: sorted, each once, and
	// separated by commas, which no name has in it.
	CreateDBUser bool
	DBRoles      string
	// KubeUsers and KubeGroups are whom a request to a Kubernetes cluster is made as, sorted, each once, and separated by
	// commas. A request of several users is nobody's.
	KubeUsers, KubeGroups string
	Record                role.RecordMode // whether what the session shows is recorded
}

// Decision is the answer. Its zero value refuses.
type Decision struct {
	Allowed bool
	Reason  Reason
	Source  Source
	Limits  Limits
}

func refuse(why Reason, s Source) Decision { return Decision{Reason: why, Source: s} }

// Decide answers one question. It has no state, reads no clock, and takes about a microsecond.
func Decide(in Input) Decision {
	who := in.Identity
	if who == nil || !identity.ValidName(who.Name) {
		return refuse(NoIdentity, Source{})
	}
	if in.Now.IsZero() || !in.Now.Before(who.Validity.Expires) {
		return refuse(ExpiredLogin, Source{Kind: FromLogin})
	}
	if l := in.Locks.Match(who, in.Target, in.Action, in.Now); l != nil {
		return refuse(Locked, Source{Kind: FromLock, Name: l.Name, Detail: l.Target.String(), Message: l.Message})
	}
	var buffer [24]asked
	held := gather(&in, buffer[:0])
	d := judge(&in, held)
	if !d.Allowed { // which refusal is told must not depend on the order in which somebody has their roles
		slices.SortFunc(held, func(a, b asked) int { return strings.Compare(a.name, b.name) })
		d = judge(&in, held)
	}
	return d
}

// judge asks roles, devices and addresses, in this order.
func judge(in *Input, held []asked) Decision {
	granted, d := rolesSay(in, held)
	if granted == nil {
		return d
	}
	if d, ok := devicesSay(in, held); !ok {
		return d
	}
	if d, ok := addressSays(in, held); !ok {
		return d
	}
	return Decision{Allowed: true, Reason: Granted, Source: Source{Kind: FromRole, Name: granted.name},
		Limits: limits(in, held)}
}

// asked is a role that was asked, once, whether it matches the target and whether it grants the action.
type asked struct {
	*Policy
	selects, grants, makes bool
}

// gather asks the identity's roles.
func gather(in *Input, held []asked) []asked {
	off := false
	for _, name := range in.Identity.Roles {
		if p := in.Roles[name]; p != nil {
			a := asked{Policy: p, selects: p.selects(in)}
			a.grants = a.selects && p.grants(in)
			a.makes = a.selects && p.makes(in)
			off = off || a.selects && p.options.CreateDBUserMode != role.DBUsersKeep && p.options.CreateDBUserMode != role.DBUsersUnset
			held = append(held, a)
		}
	}
	for i := range held { // who has a user made is let in as that user
		held[i].makes = held[i].makes && !off
		held[i].grants = held[i].grants || held[i].makes
	}
	return held
}

// rolesSay finds a denying role, else the first granting one by name.
func rolesSay(in *Input, held []asked) (*Policy, Decision) {
	for _, p := range held {
		if p.denying && p.denies(in) {
			return nil, refuse(DeniedByRole, Source{Kind: FromRole, Name: p.name})
		}
	}
	var granted *Policy
	for _, p := range held {
		if p.grants && (granted == nil || p.name < granted.name) {
			granted = p.Policy
		}
	}
	if granted == nil {
		return nil, refuse(NotGranted, Source{})
	}
	return granted, Decision{}
}

// addressSays holds pinned addresses: the certificate's own always, and that there is one where a role wants it.
func addressSays(in *Input, held []asked) (Decision, bool) {
	who := in.Identity
	if who.PinnedIP.IsValid() && who.PinnedIP.Unmap() != in.Action.From.Unmap() {
		return refuse(WrongAddress, Source{Kind: FromLogin, Detail: "pinned to " + who.PinnedIP.String()}), false
	}
	if who.PinnedIP.IsValid() {
		return Decision{}, true
	}
	for _, p := range held {
		if p.options.PinSourceIP && p.selects {
			return refuse(WrongAddress, Source{Kind: FromRole, Name: p.name, Detail: "pin_source_ip"}), false
		}
	}
	return Decision{}, true
}

// limits gathers the strictest limits of the roles that match the target, and the widest of what granting roles give.
func limits(in *Input, held []asked) Limits {
	var l Limits
	anyStrict, anyChoice := false, false
	for _, p := range held {
		if !p.selects {
			continue
		}
		o := &p.options
		l.IdleTimeout, l.MaxTTL = shorter(l.IdleTimeout, time.Duration(o.ClientIdleTimeout)), shorter(l.MaxTTL, time.Duration(o.MaxSessionTTL))
		l.DisconnectExpiredCert = l.DisconnectExpiredCert || o.DisconnectExpiredCert
		anyStrict = anyStrict || (o.Lock != "" && o.Lock != "best_effort")
		anyChoice = anyChoice || o.Lock == "best_effort"
		l.Record = l.Record.Stricter(o.RecordSession)
		if p.grants {
			l.PTY = true
			l.PortForwarding = l.PortForwarding || o.PortForwarding
			l.AgentForwarding = l.AgentForwarding || o.ForwardAgent
		}
		l.CreateDBUser = l.CreateDBUser || p.makes
	}
	l.Strict = anyStrict || (!anyChoice && in.Settings.LockingMode != "best_effort")
	if l.CreateDBUser {
		l.DBRoles = dbRoles(in, held)
	}
	if in.Target.Kind == target.Kube {
		l.KubeUsers, l.KubeGroups = kubeAs(in, held)
	}
	g := in.Identity.Grant
	l.PTY, l.PortForwarding, l.AgentForwarding = l.PTY && g.PTY, l.PortForwarding && g.PortForwarding, l.AgentForwarding && g.AgentForwarding
	return l
}

// dbRoles are those that roles which have the user made give it, and no role takes away.
func dbRoles(in *Input, held []asked) string {
	var out []string
	for _, p := range held {
		if p.makes {
			out = append(out, role.Expand(p.allow.DBRoles, in.Identity.Traits)...)
		}
	}
	out = slices.DeleteFunc(out, func(name string) bool {
		return strings.Contains(name, "*") || slices.ContainsFunc(held, func(p asked) bool { return pattern(p.deny.dbRoles, in.Identity.Traits, name) })
	})
	slices.Sort(out)
	return strings.Join(slices.Compact(out), ",")
}

func shorter(a, b time.Duration) time.Duration {
	if a == 0 || (b != 0 && b < a) {
		return b
	}
	return a
}

// human reports whether an identity counts as a person: whatever is not a bot does.
func human(u *identity.User) bool { return u.Kind != identity.Bot }

// trusted is the identity's device where its level is one that this build knows, else nil.
func trusted(u *identity.User) *identity.Device {
	if u.Device == nil || !u.Device.Level.Known() {
		return nil
	}
	if u.Device.ID == "" || u.Device.AssetTag == "" || u.Device.CredentialID == "" {
		return nil
	}
	return u.Device
}

func levelListed(levels []device.Level, l device.Level) bool {
	for _, x := range levels {
		if x == l {
			return true
		}
	}
	return false
}
