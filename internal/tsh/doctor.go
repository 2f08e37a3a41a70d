package tsh

import (
	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/client"
	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/hostinfo"
	"github.com/sallyport/sallyport/internal/hwkey/local"
	"github.com/sallyport/sallyport/internal/tsh/doctor"
	"github.com/sallyport/sallyport/internal/tsh/tool"
)

func (a *app) doctorCommand() *cobra.Command {
	var format string
	c := &cobra.Command{Use: "doctor", Short: "Check everything between this device and trust, and say what mends it", Args: tool.Exactly(0),
		Example: "  tsh device doctor\n  tsh device doctor --format=json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := a.patient()
			if err != nil {
				return err
			}
			report := doctor.Examine(cmd.Context(), p, a.Now)
			if err := console.Format(format).Print(a.Out, report, report.Text); err != nil {
				return err
			}
			return report.Err()
		}}
	c.Flags().StringVar(&format, "format", "text", "text, json or yaml")
	return c
}

// patient is this machine and what of a login there is.
func (a *app) patient() (doctor.Patient, error) {
	s, err := a.Read()
	if s == nil {
		return doctor.Patient{}, err
	}
	p := doctor.Patient{Home: s.Home, Profile: s.Profile, Login: s.Login, Key: s.Key, LoginErr: err}
	claims, tag := hostinfo.Collect(cluster.Version, a.Now())
	p.Tag, p.OS = tag, claims.OSType
	if s.Profile == nil { // the hardware can be looked at before there is a cluster
		p.Device, p.DeviceErr = local.Open(local.Options{Dir: s.Home.DeviceDir(""), TPM: a.Env("TSH_TPM")})
		return p, nil
	}
	p.Device, p.DeviceErr = a.Device(s, false)
	if s.Address.Authority != nil {
		p.Anonymous = func() *client.Cluster { return s.Address.Call(nil) }
		p.AsLoggedIn = s.Call
	}
	return p, nil
}
