package event

import (
	"fmt"
	"maps"
	"slices"
)

// Kind is an event's name.
type Kind string

// The kinds.
const (
	DeviceCreate       Kind = "device.create"
	DeviceDelete       Kind = "device.delete"
	DeviceTokenCreate  Kind = "device.token.create"
	DeviceTokenSpent   Kind = "device.token.spent"
	DeviceEnroll       Kind = "device.enroll"
	DeviceAuthenticate Kind = "device.authenticate"
	DeviceUpdate       Kind = "device.update"

	UserLogin  Kind = "user.login"
	UserCreate Kind = "user.create"
	UserUpdate Kind = "user.update"
	UserDelete Kind = "user.delete"

	RoleCreated Kind = "role.created"
	RoleUpdated Kind = "role.updated"
	RoleDeleted Kind = "role.deleted"
	LockCreated Kind = "lock.created"
	LockDeleted Kind = "lock.deleted"

	// ResourceCreate, ResourceUpdate and ResourceDelete are for the kinds that have no event of their own: tokens,
	// cluster_auth_preference, node, db, kube_cluster, app; the resource group says which.
	ResourceCreate Kind = "resource.create"
	ResourceUpdate Kind = "resource.update"
	ResourceDelete Kind = "resource.delete"

	CertCreate Kind = "cert.create"
	HostJoin   Kind = "host.join"

	SessionStart Kind = "session.start"
	SessionEnd   Kind = "session.end"
	// SessionTerminate is that an administrator ended a session: Session says which, Resource whose.
	SessionTerminate Kind = "session.terminate"
	// SessionRecorded is that a recording is over: Session.Recording is its name, the message has its file's SHA-256. It failed
	// where the recording was cut short.
	SessionRecorded Kind = "session.recording"
	// RecordingAccess is that somebody opened a recording, or was refused it.
	RecordingAccess Kind = "session.recording.access"
	Exec            Kind = "exec"
	SCP             Kind = "scp"
	Port            Kind = "port"
	Auth            Kind = "auth" // a refused attempt; Session.Reason says why

	DBSessionStart  Kind = "db.session.start"
	DBSessionQuery  Kind = "db.session.query"
	DBSessionEnd    Kind = "db.session.end"
	KubeRequest     Kind = "kube.request"
	AppSessionStart Kind = "app.session.start"

	AuditAlarm Kind = "audit.alarm" // a writer sent what it may not: Session.ServerID says who
)

// Role is what a writer's host certificate says it is.
type Role string

// The roles that write. Auth writes every kind.
const (
	RoleAuth  Role = "auth"
	RoleProxy Role = "proxy"
	RoleNode  Role = "node"
	RoleDB    Role = "db"
	RoleKube  Role = "kube"
	RoleApp   Role = "app"
)

// spec is a kind's line in the table. An empty code means that the outcome does not occur; writers are those beside
// auth.
type spec struct {
	success, failure string
	writers          []Role
}

var (
	agents  = []Role{RoleProxy, RoleNode, RoleDB, RoleKube, RoleApp}
	doors   = []Role{RoleNode, RoleDB, RoleKube, RoleApp}
	shells  = []Role{RoleNode, RoleKube}
	onlyDB  = []Role{RoleDB}
	nodeSSH = []Role{RoleNode}
)

func either(code string) spec { return spec{success: code, failure: code} }

var kinds = map[Kind]spec{
	DeviceCreate:       either("TV001I"),
	DeviceDelete:       either("TV002I"),
	DeviceTokenCreate:  either("TV003I"),
	DeviceTokenSpent:   either("TV004I"),
	DeviceEnroll:       either("TV005I"),
	DeviceAuthenticate: either("TV006I"),
	DeviceUpdate:       either("TV007I"),

	UserLogin:  {success: "T1000I", failure: "T1000W"},
	UserCreate: either("T1002I"),
	UserUpdate: either("T1003I"),
	UserDelete: either("T1004I"),

	RoleCreated: either("T9000I"),
	RoleDeleted: either("T9001I"),
	RoleUpdated: either("T9002I"),
	LockCreated: either("TLK00I"),
	LockDeleted: either("TLK01I"),

	ResourceCreate: either("TRC00I"),
	ResourceUpdate: either("TRC01I"),
	ResourceDelete: either("TRC02I"),

	CertCreate: {success: "TC000I"},
	HostJoin:   {success: "TJ001I", failure: "TJ001W"},

	SessionStart:     {success: "T2000I", writers: doors},
	SessionEnd:       {success: "T2004I", failure: "T2004I", writers: doors},
	SessionTerminate: {success: "T2009I"},
	SessionRecorded:  {success: "T2010I", failure: "T2010W"},
	RecordingAccess:  {success: "T2011I", failure: "T2011W"},
	Exec:             {success: "T3002I", failure: "T3002I", writers: shells},
	SCP:              {success: "T3004I", failure: "T3004I", writers: nodeSSH},
	Port:             {success: "T3003I", failure: "T3003I", writers: shells},
	Auth:             {failure: "T3007W", writers: agents},

	DBSessionStart:  {success: "TDB00I", failure: "TDB00W", writers: onlyDB},
	DBSessionQuery:  {success: "TDB02I", failure: "TDB02I", writers: onlyDB},
	DBSessionEnd:    {success: "TDB01I", failure: "TDB01I", writers: onlyDB},
	KubeRequest:     {success: "T3009I", failure: "T3009I", writers: []Role{RoleKube}},
	AppSessionStart: {success: "T2007I", writers: []Role{RoleApp}},

	AuditAlarm: {failure: "TAL00W"},
}

// Code is the kind's code for an outcome; an unknown kind, or an outcome it cannot have, is an error.
func (k Kind) Code(success bool) (string, error) {
	s, ok := kinds[k]
	if !ok {
		return "", fmt.Errorf("unknown event kind %q", string(k))
	}
	code := s.failure
	if success {
		code = s.success
	}
	if code == "" {
		return "", fmt.Errorf("event %s cannot have success %t", k, success)
	}
	return code, nil
}

// WrittenBy reports whether a writer with any of these roles may write the kind.
func (k Kind) WrittenBy(roles ...Role) bool {
	s, ok := kinds[k]
	return ok && slices.ContainsFunc(roles, func(r Role) bool {
		return r == RoleAuth || slices.Contains(s.writers, r)
	})
}

// Kinds lists all kinds, sorted.
func Kinds() []Kind { return slices.Sorted(maps.Keys(kinds)) }
