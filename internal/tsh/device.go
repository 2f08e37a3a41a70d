package tsh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/client"
	"github.com/sallyport/sallyport/internal/client/enroll"
	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/hostinfo"
	"github.com/sallyport/sallyport/internal/hwkey"
	"github.com/sallyport/sallyport/internal/tsh/doctor"
	"github.com/sallyport/sallyport/internal/tsh/tool"
)

func (a *app) deviceCommand() *cobra.Command {
	return console.Group("device", "Enroll this device, and see what it is to the cluster", "tsh device enroll --current-device\n  tsh device status",
		a.enrollCommand(), a.collectCommand(), a.assetTagCommand(), a.deviceStatusCommand(), a.doctorCommand(), a.activateCommand())
}

type enrollFlags struct {
	current bool
	token   string
}

func (a *app) enrollCommand() *cobra.Command {
	var f enrollFlags
	c := &cobra.Command{Use: "enroll", Short: "Enroll this device", Args: tool.Exactly(0),
		Example: "  tsh device enroll --current-device\n  tsh device enroll --token=TOKEN",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.token == "" && !f.current {
				return &console.Usage{Err: fault.New(fault.Invalid, "required flag --token not provided")}
			}
			return a.enroll(cmd.Context(), f)
		}}
	c.Flags().BoolVar(&f.current, "current-device", false, "enroll without a token, as an administrator of devices")
	c.Flags().StringVar(&f.token, "token", "", "enrollment token: TOKEN, @FILE, or - for standard input")
	return c
}

// enrolling is one enrollment under way.
type enrolling struct {
	*app
	state      *tool.State
	claims     device.Data
	tag        string
	token      string
	otp        string
	registered bool
	auto       bool // nobody typed it
}

func (a *app) enroll(ctx context.Context, f enrollFlags) error {
	s, err := a.Load(ctx)
	if err != nil {
		return err
	}
	e := &enrolling{app: a, state: s}
	if e.token, err = a.secret(f.token); err != nil {
		return err
	}
	e.claims, e.tag = hostinfo.Collect(cluster.Version, a.Now())
	if e.token == "" {
		if err := e.secondFactor(ctx); err != nil {
			return err
		}
	}
	dev, err := a.Device(s, false)
	if err == nil {
		err = e.run(ctx, dev)
	}
	if fault.Because(err, "not_granted") && e.token == "" {
		err = e.byItself(ctx, dev, err)
	}
	if noHardware(err) {
		err = e.software(ctx, err)
	}
	if err != nil && e.registered {
		fmt.Fprintf(a.Out, "Device %q/%s registered\n", e.tag, e.claims.OSType.Title())
	}
	return err
}

// byItself enrolls a device for somebody without the right to enroll, where the cluster has registered devices enroll by
// themselves: what a login does, but with the person there to consent. Where it does not, the refusal stands.
func (e *enrolling) byItself(ctx context.Context, dev hwkey.Device, refused error) error {
	e.auto = true
	err := e.run(ctx, dev)
	if fault.Because(err, "auto_enroll_off") || fault.Is(err, fault.NotFound) {
		return refused
	}
	return err
}

// noHardware reports whether an enrollment failed because the machine has no TPM at all: not one that may not be
// opened, which is to be mended.
func noHardware(err error) bool {
	return (fault.Because(err, hwkey.ErrOpenTPM.Reason) && errors.Is(err, fs.ErrNotExist)) || fault.Because(err, hwkey.ErrNoEnclave.Reason)
}

// software enrolls a key file, which the cluster takes only where it allows software keys; else the missing hardware
// is what the person is told of.
func (e *enrolling) software(ctx context.Context, missing error) error {
	dev, err := e.app.Device(e.state, true)
	if err != nil {
		return err
	}
	if err = e.run(ctx, dev); fault.Because(err, "device_software_refused") || fault.Because(err, "no_asset_tag") {
		return missing
	}
	return err
}

func (e *enrolling) secondFactor(ctx context.Context) error {
	c := e.state.Call()
	defer c.Close()
	hello, err := c.Hello(ctx)
	if err != nil || len(hello.SecondFactors) == 0 {
		return err
	}
	e.otp, err = person{e.app}.OTP(ctx)
	return err
}

// run enrolls a device, keeps its key and upgrades the certificates at once.
func (e *enrolling) run(ctx context.Context, dev hwkey.Device) error {
	s := e.state
	fresh := s.Home.KeyFile(s.Profile) + ".new"
	defer os.Remove(fresh)
	key, err := dev.NewSession(fresh)
	if err != nil {
		return err
	}
	attestor, err := dev.Enroll(key)
	if err != nil {
		return err
	}
	if e.tag == "" {
		if e.tag, err = dev.Tag(); err != nil {
			return err
		}
	}
	c := s.Call()
	defer c.Close()
	welcome, err := enroll.Run(ctx, s.Address, c, enroll.Request{User: s.Profile.User, Certificate: s.Login.TLS.Raw, SessionKey: key.Public(), Key: attestor,
		Claims: e.claims, Token: e.token, Register: e.token == "" && !e.auto, Auto: e.auto, OS: e.claims.OSType, AssetTag: e.tag, OTP: e.otp,
		Registered: func() { e.registered = true }})
	if err != nil {
		return err
	}
	kept := hwkey.Enrollment{Kind: dev.Kind(), DeviceID: welcome.DeviceID, AssetTag: welcome.AssetTag, CredentialID: welcome.CredentialID, Level: welcome.Level}
	if err := attestor.Keep(kept); err != nil {
		return err
	}
	done := "enrolled"
	if e.registered {
		done = "registered and enrolled"
	}
	e.registered = false
	fmt.Fprintf(e.Out, "Device %q/%s %s\n", welcome.AssetTag, e.claims.OSType.Title(), done)
	return e.upgrade(ctx, dev, key, fresh, kept)
}

// upgrade reissues the certificates with the device in them.
func (e *enrolling) upgrade(ctx context.Context, dev hwkey.Device, key hwkey.Key, fresh string, kept hwkey.Enrollment) error {
	s := e.state
	attestor, err := dev.Login(key)
	if err != nil {
		return err
	}
	c := s.Call()
	defer c.Close()
	got, err := s.Address.Login(ctx, c, client.LoginRequest{User: s.Profile.User, Key: key.Public(), Certificate: s.Login.TLS.Raw,
		Device: &client.DeviceProof{Key: attestor, CredentialID: kept.CredentialID, Claims: e.claims}}, nil)
	if err == nil {
		err = got.DeviceFault
	}
	if err != nil {
		fmt.Fprintln(e.Err, "the certificates were not upgraded; to use the device now: tsh logout; tsh login")
		return err
	}
	return e.keep(s, fresh, key, got)
}

func (a *app) collectCommand() *cobra.Command {
	return &cobra.Command{Use: "collect", Short: "Print what this device says of itself, as JSON", Example: "  tsh device collect", Args: tool.Exactly(0),
		RunE: func(*cobra.Command, []string) error {
			claims, _ := hostinfo.Collect(cluster.Version, a.Now())
			return console.Format("json").Print(a.Out, claims, nil)
		}}
}

func (a *app) assetTagCommand() *cobra.Command {
	return &cobra.Command{Use: "asset-tag", Short: "Print this device's asset tag", Example: "  tsh device asset-tag", Args: tool.Exactly(0),
		RunE: func(*cobra.Command, []string) error {
			tag, err := a.tag()
			if err != nil {
				return err
			}
			fmt.Fprintln(a.Out, tag)
			return nil
		}}
}

// tag is what this device is called: what the cluster calls it once it is enrolled, what the machine says, or what
// its endorsement key is hashed to.
func (a *app) tag() (string, error) {
	_, tag := hostinfo.Collect(cluster.Version, a.Now())
	s, err := a.Read()
	if s == nil || s.Profile == nil {
		s = nil
	}
	if s != nil {
		dev, derr := a.Device(s, false)
		if derr == nil {
			if e, eerr := dev.Enrollment(); eerr == nil {
				return e.AssetTag, nil
			}
			if tag == "" {
				return dev.Tag()
			}
		}
	}
	if tag == "" {
		return "", fault.New(fault.NotFound, "this machine tells no asset tag").WithFix("tsh login, then try again: the tag then comes from the TPM").Wrapping(err)
	}
	return tag, nil
}

// standing is what `tsh device status` shows.
type standing struct {
	client.DeviceStanding
	Cluster    string `json:"cluster"`
	ThisDevice string `json:"this_device"`
	KeyHere    bool   `json:"device_key_here"`
	Proven     bool   `json:"login_carries_device"`
	Missing    string `json:"missing,omitempty"`
	Fix        string `json:"fix,omitempty"`
}

func (a *app) deviceStatusCommand() *cobra.Command {
	var format string
	c := &cobra.Command{Use: "status", Short: "Show what this device is to the cluster, and what is missing", Example: "  tsh device status", Args: tool.Exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			st, err := a.standing(cmd.Context())
			if err != nil {
				return err
			}
			return console.Format(format).Print(a.Out, st, st.text)
		}}
	c.Flags().StringVar(&format, "format", "text", "text, json or yaml")
	return c
}

func (a *app) standing(ctx context.Context) (standing, error) {
	s, err := a.Load(ctx)
	if err != nil {
		return standing{}, err
	}
	st := standing{Cluster: s.Profile.Cluster, Proven: s.Login.Identity.Device != nil}
	if st.ThisDevice, err = a.tag(); err != nil {
		return st, err
	}
	ref := client.DeviceRef{Tag: st.ThisDevice}
	ref.OS, _ = device.ParseOS(string(hostOS(a)))
	var kept hwkey.Enrollment
	if dev, derr := a.Device(s, false); derr == nil {
		if kept, derr = dev.Enrollment(); derr == nil {
			st.KeyHere, ref = true, client.DeviceRef{ID: kept.DeviceID}
		}
	}
	c := s.Call()
	defer c.Close()
	if st.DeviceStanding, err = c.MyDevice(ctx, ref); err != nil {
		return st, err
	}
	if f := doctor.Missing(st.DeviceStanding, st.KeyHere, kept.CredentialID, st.Proven); f != nil {
		st.Missing, st.Fix = f.Text, f.Fix
	}
	return st, nil
}

func hostOS(a *app) device.OS {
	claims, _ := hostinfo.Collect(cluster.Version, a.Now())
	return claims.OSType
}

func (st standing) text(w io.Writer) error {
	yes := map[bool]string{true: "yes", false: "no"}
	line := func(name, value string) { fmt.Fprintf(w, "%-22s%s\n", name+":", console.Safe(value)) }
	line("Device", st.ThisDevice)
	line("Cluster", st.Cluster)
	line("Registered", yes[st.Registered])
	line("Enrolled", yes[st.Enrolled])
	if st.Enrolled {
		line("Owner", st.Owner)
		line("Level", st.Level)
	}
	line("Device key here", yes[st.KeyHere])
	line("Login carries device", yes[st.Proven])
	for _, f := range st.Findings {
		line("Noticed", f)
	}
	if st.Missing != "" {
		line("Missing", st.Missing)
		line("To fix", st.Fix)
	}
	return nil
}
