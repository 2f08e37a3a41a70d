package proof

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/internal/bootlog"
	"github.com/sallyport/sallyport/internal/ceremony"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/hostinfo"
)

// wantsQuote reports whether the machine's start is to be quoted: a role of the user demands Secure Boot, or the device
// has a baseline. Only TPMs quote.
func (l *proving) wantsQuote(ctx context.Context) (bool, error) {
	switch based := l.health.Baseline != nil; {
	case based && l.cred.Kind != device.TPM2:
		return false, fault.New(fault.Denied, "the device does not prove what it booted, and it has a baseline").WithReason(device.BootUnproven).
			WithCause("a %s key quotes nothing", l.cred.Kind).WithFix("ask a device admin: tctl devices baseline --asset-tag=%s --clear", l.before.AssetTag)
	case l.cred.Kind != device.TPM2:
		return false, nil
	case based:
		return true, nil
	}
	return l.demandsSecureBoot(ctx)
}

func (l *proving) demandsSecureBoot(ctx context.Context) (bool, error) {
	account, _, err := l.Records.Account(ctx, l.user)
	if err != nil {
		return false, err
	}
	picture, _ := l.Pictures.Current()
	return slices.ContainsFunc(account.Roles, func(name string) bool {
		p := picture.Roles[name]
		return p != nil && p.Options().DeviceRequirements != nil && p.Options().DeviceRequirements.SecureBoot
	}), nil
}

// judge looks at what a proof shows beside the proof: counters, firmware, tag, boot. Only a boot that is not the
// baseline's refuses the proof; the rest is noted.
func (l *proving) judge(claims device.Data, r ceremony.Result) error {
	now := l.Now().UTC()
	if last, next := l.cred.Clock, r.Credential.Clock; last != nil && next != nil {
		if next.Back(last) {
			l.health.Note(device.Finding{Reason: device.CountersBack, Time: now,
				Text: "the TPM's counters went back: the machine was restored from a snapshot, or has a clone"})
		}
		if next.Firmware != last.Firmware {
			l.health.Note(device.Finding{Reason: device.FirmwareChanged, Time: now, Text: "the TPM has another firmware than before"})
		}
	}
	l.judgeTag(claims, now)
	if r.Quote == nil {
		return nil
	}
	return l.judgeBoot(*r.Quote, now)
}

// clock is what the next figures are compared with: the new ones or, as long as they are behind, the highest.
func (l *proving) clock(next *device.Clock) *device.Clock {
	if next == nil || !next.Back(l.cred.Clock) {
		return next
	}
	kept := *l.cred.Clock
	kept.Firmware = next.Firmware
	return &kept
}

// judgeTag notes a machine that says another asset tag than its record. What could not be read is compared with nothing.
func (l *proving) judgeTag(claims device.Data, now time.Time) {
	tag := hostinfo.Tag(claims)
	if claims.OSType == "" || tag == "" || strings.HasPrefix(l.before.AssetTag, "ek-") {
		return
	}
	if tag == l.before.AssetTag {
		l.health.Settle(device.TagChanged)
		return
	}
	l.health.Note(device.Finding{Reason: device.TagChanged, Text: fmt.Sprintf("the machine says it is %q", tag), Time: now})
}

// judgeBoot takes what the event log proves, and holds it against the baseline.
func (l *proving) judgeBoot(q device.Quote, now time.Time) error {
	boot := &device.Boot{Time: now}
	l.health.Boot, l.noticed = boot, true
	verdict, err := judgeLog(q)
	if err != nil {
		f := fault.Of(err)
		boot.Problem, boot.Detail = f.Reason, f.Cause
		l.health.Note(device.Finding{Reason: device.BootUnproven, Text: boot.Detail, Time: now})
		if l.health.Baseline != nil {
			return fault.New(fault.Denied, "the device does not prove what it booted, and it has a baseline").WithReason(f.Reason).
				WithCause("%s", f.Cause).WithFix("%s", unprovenFix(f, l.before.AssetTag))
		}
		l.notices = append(l.notices, fmt.Sprintf("Secure Boot is not proven: %s", f.Cause))
		return nil
	}
	boot.PCRs, boot.SecureBoot, boot.Detail = device.Hex(verdict.Values), verdict.SecureBoot, verdict.Doubt
	l.health.Settle(device.BootUnproven)
	if verdict.Doubt != "" {
		l.notices = append(l.notices, "Secure Boot is not proven: "+verdict.Doubt)
	}
	return l.compare(boot, now)
}

func unprovenFix(f *fault.Error, tag string) string {
	if f.Fix != "" {
		return f.Fix
	}
	return "ask a device admin: tctl devices baseline --asset-tag=" + tag + " --clear"
}

// judgeLog judges an event log, or the lack of one.
func judgeLog(q device.Quote) (bootlog.Verdict, error) {
	if len(q.Log) == 0 {
		why := "the device sent none"
		if q.NoLog != "" {
			why = q.NoLog
		}
		return bootlog.Verdict{}, fault.New(fault.Denied, "no event log").WithReason("eventlog_unreadable").WithCause("%s", why)
	}
	return bootlog.Judge(q.Log, q.PCRs)
}

// compare holds a boot against the baseline; the first one after it was asked for becomes it.
func (l *proving) compare(boot *device.Boot, now time.Time) error {
	if l.health.Baseline == nil {
		return nil
	}
	base := *l.health.Baseline
	if len(base.PCRs) == 0 && base.Pin(boot) {
		base.Time, l.health.Baseline = now, &base
		return nil
	}
	differ := base.Differs(boot)
	switch {
	case len(differ) == 0:
		l.health.Settle(device.BootChanged)
		return nil
	case len(base.PCRs) == 0: // some PCR is extended after the start
		missing := slices.DeleteFunc(differ, func(pcr int) bool { return boot.PCRs[pcr] != "" })
		text := "the event log does not replay to " + describe(missing)
		l.health.Note(device.Finding{Reason: device.BootUnproven, Text: text, Time: now})
		return fault.New(fault.Denied, "the device does not prove what its baseline is to pin").WithReason(device.BootUnproven).
			WithCause("%s", text).WithFix("ask a device admin: tctl devices baseline --asset-tag=%s --pcrs=0,2,4,7", l.before.AssetTag)
	}
	text := fmt.Sprintf("not what it was on %s: %s", base.Time.Format(time.DateOnly), describe(differ))
	l.health.Note(device.Finding{Reason: device.BootChanged, Text: text, Time: now})
	return fault.New(fault.Denied, "the device booted something else than its baseline").WithReason(device.BootChanged).
		WithCause("%s", text).WithFix("ask a device admin: tctl devices baseline --asset-tag=%s --accept", l.before.AssetTag)
}

// describe names PCRs with what is measured into them.
func describe(pcrs []int) string {
	var list []string
	for _, pcr := range pcrs {
		list = append(list, fmt.Sprintf("PCR %d (%s)", pcr, bootlog.Describe(pcr)))
	}
	return strings.Join(list, ", ")
}
