// Package machines is tctl's commands for devices.
package machines

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/client"
	"github.com/sallyport/sallyport/internal/client/fleet"
	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/hostinfo"
	"github.com/sallyport/sallyport/internal/hwkey/local"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/tctl/tool"
)

// Commands are the package's commands of one run.
func Commands(run *tool.Tool) []*cobra.Command {
	t := commands{run}
	return []*cobra.Command{t.devices()}
}

type commands struct{ *tool.Tool }

func (t commands) devices() *cobra.Command {
	return console.Group("devices", "Trusted devices", "tctl devices add --os=linux --asset-tag=C00AA0AAAA0A --enroll",
		t.devicesAdd(), t.devicesList(), t.devicesEnroll(), t.devicesRemove(), t.devicesLock(), t.devicesUnenroll(), t.devicesTokens(),
		t.devicesImport(), t.devicesBaseline(), t.devicesAccept(), t.devicesTrust())
}

// deviceFlags name a device.
type deviceFlags struct {
	tag     string
	id      string
	current bool
}

func (f *deviceFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.tag, "asset-tag", "", "the device's asset tag")
	c.Flags().StringVar(&f.id, "device-id", "", "the device's id")
	c.Flags().BoolVar(&f.current, "current-device", false, "this machine")
}

// at reaches the cluster, and says which device the flags name.
func (t commands) at(ctx context.Context, f deviceFlags) (*client.Cluster, client.DeviceRef, error) {
	r, err := t.ref(f)
	if err != nil {
		return nil, r, err
	}
	c, err := t.Cluster(ctx)
	return c, r, err
}

// ref is the device that the flags name.
func (t commands) ref(f deviceFlags) (client.DeviceRef, error) {
	named := 0
	for _, set := range []bool{f.tag != "", f.id != "", f.current} {
		if set {
			named++
		}
	}
	switch {
	case named == 0:
		return client.DeviceRef{}, console.Usagef("either --device-id or --asset-tag must be set")
	case named > 1:
		return client.DeviceRef{}, console.Usagef("only one of --device-id, --asset-tag and --current-device can be set")
	case f.current:
		return t.thisDevice()
	}
	return client.DeviceRef{ID: f.id, Tag: device.NormalTag(f.tag)}, nil
}

// thisDevice names this machine: by what it says of itself, else by its hardware.
func (t commands) thisDevice() (client.DeviceRef, error) {
	data, tag := hostinfo.Collect(cluster.Version, time.Now())
	if tag == "" {
		dev, err := local.Open(local.Options{Dir: filepath.Join(t.tshHome(), "device"), TPM: t.Env("TSH_TPM")})
		if err == nil {
			tag, err = dev.Tag()
		}
		if err != nil {
			return client.DeviceRef{}, err
		}
	}
	if tag == "" {
		return client.DeviceRef{}, fault.New(fault.Unavailable, "this machine says no asset tag").WithReason("no_tag").
			WithFix("tctl devices add --os=%s --asset-tag=TAG", data.OSType)
	}
	return client.DeviceRef{Tag: tag, OS: data.OSType}, nil
}

func (t commands) tshHome() string {
	if dir := t.Env("TSH_HOME"); dir != "" {
		return dir
	}
	return filepath.Join(t.Env("HOME"), ".tsh")
}

// find reads the device that a reference names.
func find(ctx context.Context, c *client.Cluster, r client.DeviceRef) (*device.Device, error) {
	res, err := c.Get(ctx, manifest.Device, tool.Or(r.ID, r.Tag))
	if err == nil {
		if d, ok := res.Spec.(*device.Device); ok && (r.OS == "" || d.OSType == r.OS) {
			return d, nil
		}
	}
	if err != nil && (r.OS == "" || !fault.Because(err, "device_ambiguous")) { // a tag alone may be that of several systems
		return nil, err
	}
	l := fleet.Listing{OS: r.OS, Query: fmt.Sprintf("resource.asset_tag == %q", r.Tag)}
	for {
		list, next, err := fleet.Of(c).List(ctx, l)
		switch {
		case err != nil:
			return nil, err
		case len(list) > 0:
			return list[0], nil
		case next == "":
			return nil, fault.New(fault.NotFound, "device %q not found", tool.Or(r.Tag, r.ID)).WithReason("device_not_found").WithFix("tctl devices ls")
		}
		l.After = next
	}
}

type devicesAddFlags struct {
	os      string
	tag     string
	owner   string
	current bool
	enroll  bool
	ekHash  string
	ttl     time.Duration
}

func (t commands) devicesAdd() *cobra.Command {
	var f devicesAddFlags
	c := tool.Command("add --os=linux|macos|windows --asset-tag=TAG", "Put a device in the inventory", "tctl devices add --os=linux --asset-tag=C00AA0AAAA0A --enroll", 0,
		func(ctx context.Context, _ []string) error { return t.addDevice(ctx, f) })
	c.Flags().StringVar(&f.os, "os", "", "linux, macos or windows")
	c.Flags().StringVar(&f.tag, "asset-tag", "", "the device's asset tag")
	c.Flags().StringVar(&f.owner, "owner", "", "the user who may enroll it")
	c.Flags().StringVar(&f.ekHash, "ek-hash", "", "the endorsement key that it is to enroll with, and no other: SHA-256 of its public key, hex")
	c.Flags().BoolVar(&f.current, "current-device", false, "this machine")
	c.Flags().BoolVar(&f.enroll, "enroll", false, "make an enrollment token too")
	c.Flags().DurationVar(&f.ttl, "enroll-ttl", time.Hour, "how long the enrollment token lives")
	return c
}

func (t commands) addDevice(ctx context.Context, f devicesAddFlags) error {
	d, err := t.newDevice(f)
	if err != nil {
		return err
	}
	c, err := t.Cluster(ctx)
	if err != nil {
		return err
	}
	added, err := c.RegisterDevice(ctx, d)
	if err != nil {
		return err
	}
	fmt.Fprintf(t.Out, "Device %s/%s added to the inventory\n", added.AssetTag, added.OSType.Title())
	if !f.enroll {
		return nil
	}
	return t.enrollToken(ctx, c, tokenRequest{client.DeviceRef{ID: added.ID}, f.owner, f.ttl, "text"})
}

func (t commands) newDevice(f devicesAddFlags) (device.Device, error) {
	d := device.Device{AssetTag: f.tag, Owner: f.owner, EKHash: strings.ToLower(f.ekHash), Source: &device.Source{Name: "tctl"}}
	if f.current {
		if f.os != "" || f.tag != "" {
			return d, console.Usagef("--current-device takes neither --os nor --asset-tag")
		}
		r, err := t.thisDevice()
		d.OSType, d.AssetTag = r.OS, r.Tag
		return d, err
	}
	os, known := device.ParseOS(f.os)
	switch {
	case f.os == "" || f.tag == "" && f.ekHash == "":
		return d, console.Usagef("--os and --asset-tag must be set, or --current-device; with --ek-hash a machine that tells no tag needs none")
	case !known:
		return d, console.Usagef("--os: %q is none of linux, macos, windows", f.os)
	}
	d.OSType = os
	return d, nil
}

type tokenRequest struct {
	ref    client.DeviceRef
	owner  string
	ttl    time.Duration
	format console.Format
}

// enrollToken makes a device's token and prints how to spend it.
func (t commands) enrollToken(ctx context.Context, c *client.Cluster, r tokenRequest) error {
	made, err := fleet.Of(c).EnrollToken(ctx, r.ref, r.owner, r.ttl)
	if err != nil {
		return err
	}
	token, expires, d := made.Secret, made.Expires, made.Device
	shown := struct {
		Token    string    `json:"token"`
		Expires  time.Time `json:"expires"`
		DeviceID string    `json:"device_id"`
		AssetTag string    `json:"asset_tag"`
	}{token, expires, d.ID, d.AssetTag}
	return r.format.Print(t.Out, shown, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "Run the command below on device %q to enroll it, once, until %s:\n\ntsh device enroll --token=%s\n", d.AssetTag, tool.Until(expires), token)
		return err
	})
}

func (t commands) devicesEnroll() *cobra.Command {
	var f deviceFlags
	r := tokenRequest{}
	c := tool.Command("enroll --asset-tag=TAG", "Make a device's enrollment token", "tctl devices enroll --asset-tag=C00AA0AAAA0A", 0, func(ctx context.Context, _ []string) error {
		var err error
		if r.ref, err = t.ref(f); err != nil {
			return err
		}
		c, err := t.Cluster(ctx)
		if err != nil {
			return err
		}
		return t.enrollToken(ctx, c, r)
	})
	f.add(c)
	c.Flags().StringVar(&r.owner, "owner", "", "the user whom the device will belong to")
	c.Flags().DurationVar(&r.ttl, "enroll-ttl", time.Hour, "how long the token lives")
	c.Flags().DurationVar(&r.ttl, "ttl", time.Hour, "the same")
	tool.FormatFlag(c, &r.format)
	return c
}

func (t commands) devicesRemove() *cobra.Command {
	var f deviceFlags
	c := tool.Command("rm --asset-tag=TAG", "Remove a device and end what it was used for", "tctl devices rm --asset-tag=C00AA0AAAA0A", 0, func(ctx context.Context, _ []string) error {
		c, d, err := t.named(ctx, f)
		if err != nil {
			return err
		}
		shown, err := c.Delete(ctx, manifest.Device, d.ID)
		if err != nil {
			return err
		}
		fmt.Fprintf(t.Out, "Device %q removed\n", shown)
		return nil
	})
	f.add(c)
	return c
}

// named reaches the cluster and reads the device that the flags name.
func (t commands) named(ctx context.Context, f deviceFlags) (*client.Cluster, *device.Device, error) {
	c, r, err := t.at(ctx, f)
	if err != nil {
		return nil, nil, err
	}
	d, err := find(ctx, c, r)
	return c, d, err
}

func (t commands) devicesUnenroll() *cobra.Command {
	var f deviceFlags
	c := tool.Command("unenroll --asset-tag=TAG", "Take a device's credentials and end what was issued on them", "tctl devices unenroll --asset-tag=C00AA0AAAA0A", 0, func(ctx context.Context, _ []string) error {
		c, r, err := t.at(ctx, f)
		if err != nil {
			return err
		}
		d, err := c.Unenroll(ctx, r)
		if err != nil {
			return err
		}
		fmt.Fprintf(t.Out, "Device %q unenrolled\n", d.AssetTag)
		return nil
	})
	f.add(c)
	return c
}
