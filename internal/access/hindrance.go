package access

import (
	"slices"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/target"
)

// Hindrances names the rules that would refuse this login for its device on every target that they match: a lock on
// its user, role, device or credential, the cluster's mode, and each of its roles' modes and requirements. Target and
// Action of the input say nothing here. It decides nothing: who is not hindered may be refused for other reasons.
func Hindrances(in Input) []*fault.Error {
	in.Target, in.Action = target.Target{}, target.Action{}
	if in.Identity == nil {
		return []*fault.Error{Refusal(Decision{}, in)}
	}
	var out []*fault.Error
	if l := in.Locks.Match(in.Identity, in.Target, in.Action, in.Now); l != nil {
		out = append(out, Refusal(refuse(Locked, Source{Kind: FromLock, Name: l.Name, Detail: l.Target.String(), Message: l.Message}), in))
	}
	add := func(held []asked) {
		d, ok := devicesSay(&in, held)
		if ok {
			return
		}
		f := Refusal(d, in)
		if !slices.ContainsFunc(out, func(o *fault.Error) bool { return o.Cause == f.Cause }) {
			out = append(out, f)
		}
	}
	add(nil) // the cluster's mode alone
	for _, name := range slices.Sorted(slices.Values(in.Identity.Roles)) {
		if p := in.Roles[name]; p != nil {
			add([]asked{{Policy: p, selects: true}})
		}
	}
	return out
}
