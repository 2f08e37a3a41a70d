package access

import (
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/identity"
)

// devicesSay holds the modes and the requirements of the cluster and of every role that matches the target.
func devicesSay(in *Input, held []asked) (Decision, bool) {
	who := in.Identity
	dev := trusted(who)
	source, demanded := strictestMode(in, held)
	if demanded && excused(who, source) {
		return Decision{}, true
	}
	if demanded && dev == nil {
		return refuse(NoDevice, source), false
	}
	software := dev != nil && !dev.Level.Hardware()
	listed := false
	for _, p := range held {
		if !p.selects {
			continue
		}
		q := p.options.DeviceRequirements
		if !p.mode.Demands() {
			continue
		}
		if q == nil {
			if software {
				return refuse(SoftwareDevice, Source{Kind: FromRole, Name: p.name}), false
			}
			continue
		}
		if dev == nil {
			continue
		}
		if miss := p.unmet(dev, who.KeyPolicy); len(miss) > 0 {
			return refuse(WeakDevice, Source{Kind: FromRole, Name: p.name, Detail: wording(miss)}), false
		}
		if software && !levelListed(q.Attestation, device.LevelSoftware) {
			return refuse(SoftwareDevice, Source{Kind: FromRole, Name: p.name}), false
		}
		listed = true
	}
	if software && demanded && !listed {
		return refuse(SoftwareDevice, source), false
	}
	return Decision{}, true
}

// strictestMode finds the mode that decides: the cluster's, or that of a matching role. Requirements without a mode mean
// required.
func strictestMode(in *Input, held []asked) (Source, bool) {
	mode, source := in.Settings.DeviceTrust.Mode, Source{Kind: FromCluster, Name: "cluster_auth_preference"}
	if mode == device.ModeUnset {
		mode = "unset" // settings that were never read count as required
	}
	for _, p := range held {
		if !p.selects {
			continue
		}
		m := p.mode
		if !m.Demands() {
			continue
		}
		if m.Stricter(mode) || !mode.Demands() || (source.Kind == FromCluster && m == mode) {
			mode, source = m, Source{Kind: FromRole, Name: p.name}
		}
	}
	source.Detail = string(mode)
	return source, mode.Demands()
}

// excused reports whether a bot with a pinned address may do without a device, as required-for-humans lets it:
// then no device of its is looked at, so that having one is never worse than having none.
func excused(u *identity.User, s Source) bool {
	return !human(u) && u.PinnedIP.IsValid() && s.Detail == string(device.ModeRequiredForHumans)
}
