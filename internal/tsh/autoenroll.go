package tsh

import (
	"context"

	"github.com/sallyport/sallyport/internal/client"
	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/hostinfo"
	"github.com/sallyport/sallyport/internal/hwkey"
	"github.com/sallyport/sallyport/internal/hwkey/local"
	"github.com/sallyport/sallyport/internal/tsh/tool"
)

// autoEnroll enrolls this device behind a login without one, where the cluster has registered devices enroll by
// themselves and this one is registered. What keeps it from being tried is nobody's business; a try that fails is told.
func (a *app) autoEnroll(ctx context.Context, s *tool.State) {
	if s.Login == nil || s.Login.Identity.Device != nil {
		return
	}
	dev, err := local.Open(local.Options{Dir: s.Home.DeviceDir(s.Profile.Cluster), TPM: a.Env("TSH_TPM"), Unattended: true})
	if err != nil {
		return
	}
	if _, err := dev.Enrollment(); !fault.Because(err, hwkey.ErrNotEnrolled.Reason) {
		return
	}
	e := &enrolling{app: a, state: s, auto: true}
	e.claims, e.tag = hostinfo.Collect(cluster.Version, a.Now())
	if e.tag == "" {
		if e.tag, err = dev.Tag(); err != nil || e.tag == "" {
			return
		}
	}
	c := s.Call()
	defer c.Close()
	st, err := c.MyDevice(ctx, client.DeviceRef{Tag: e.tag, OS: e.claims.OSType})
	if err != nil || !st.Registered || st.Enrolled {
		return
	}
	a.warnAboutDevice(e.run(ctx, dev))
}
