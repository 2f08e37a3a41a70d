package machines

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/client"
	"github.com/sallyport/sallyport/internal/client/fleet"
	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/tctl/tool"
)

type trustFlags struct {
	deviceFlags
	issuers []string
	key     bool
	ekHash  string
	yes     bool
}

func (t commands) devicesTrust() *cobra.Command {
	var f trustFlags
	c := tool.Command("trust --asset-tag=TAG", "Show who vouches for a device's TPM, and trust them",
		"tctl devices trust --asset-tag=C00AA0AAAA0A --issuer=maker.crt", 0,
		func(ctx context.Context, _ []string) error { return t.trust(ctx, f) })
	c.Long = "Show the endorsement key that a device came with last and the authorities above its certificate, and after\n" +
		"a confirmation add them to ekcert_allowed_cas. A TPM without a certificate, or one that is to be\n" +
		"trusted alone (--this-key), is approved by the hash of its key. Nothing is fetched: --issuer names files."
	f.add(c)
	c.Flags().StringSliceVar(&f.issuers, "issuer", nil, "files with certificates of authorities above the EK certificate, PEM or DER")
	c.Flags().BoolVar(&f.key, "this-key", false, "approve this one endorsement key and no authority")
	c.Flags().StringVar(&f.ekHash, "ek-hash", "", "go on only if this is the hash, as the refusal on the device said it")
	c.Flags().BoolVar(&f.yes, "yes", false, "do not ask")
	return c
}

func (t commands) trust(ctx context.Context, f trustFlags) error {
	r, err := t.ref(f.deviceFlags)
	if err != nil {
		return err
	}
	issuers, err := readIssuers(f.issuers)
	if err != nil {
		return err
	}
	c, err := t.Cluster(ctx)
	if err != nil {
		return err
	}
	e, err := fleet.Of(c).Endorsement(ctx, r, issuers)
	if err != nil {
		return err
	}
	t.showEndorsement(e)
	if f.ekHash != "" && !strings.EqualFold(f.ekHash, e.EKHash) {
		return fault.New(fault.Conflict, "another TPM came as device %q since", e.AssetTag).WithReason("ek_hash_mismatch").
			WithCause("its endorsement key is %s, not %s", e.EKHash, strings.ToLower(f.ekHash)).WithFix("tsh device enroll   (on the device, again)")
	}
	switch {
	case f.key || len(e.Chain) == 0:
		return t.approveKey(ctx, c, e, f.yes)
	case e.Trusted:
		fmt.Fprintln(t.Out, "An authority of ekcert_allowed_cas vouches for it already.")
		return nil
	case e.Authorities == "":
		return missingIssuer(e, r)
	}
	return t.trustAuthorities(ctx, c, e, f.yes)
}

func (t commands) showEndorsement(e fleet.Endorsement) {
	show := func(format string, args ...any) { fmt.Fprintln(t.Out, console.Safe(fmt.Sprintf(format, args...))) }
	show("Device %q came with the endorsement key %s", e.AssetTag, e.EKHash)
	if e.Refused != "" {
		show("  and was refused: %s", e.Refused)
	}
	for i, l := range e.Chain {
		what := "EK certificate"
		if i > 0 {
			what = "its authority"
		}
		show("  %s: %q, serial %s, until %s\n    SHA-256 %s", what, l.Subject, l.Serial, l.NotAfter.Format(time.DateOnly), l.SHA256)
	}
	if len(e.Chain) == 0 {
		show("  It has no certificate.")
	}
	if e.Missing != "" {
		show("  issued by %s, whose certificate is not here", e.Missing)
	}
}

// missingIssuer says where the certificate is that is missing, and what to type then.
func missingIssuer(e fleet.Endorsement, r client.DeviceRef) error {
	named := "--asset-tag=" + e.AssetTag
	if r.ID != "" {
		named = "--device-id=" + r.ID
	}
	f := fault.New(fault.NotFound, "the certificate of the issuer %s is missing", e.Missing).WithReason("ekcert_issuer_missing")
	if e.MissingURL == "" {
		return f.WithCause("the EK certificate does not say where it is").
			WithFix("get it from the TPM's maker, then: tctl devices trust %s --issuer=FILE   (or approve this TPM alone: --this-key)", named)
	}
	return f.WithCause("its maker says that it is at %s", e.MissingURL).
		WithFix("curl -o issuer.crt '%s' && tctl devices trust %s --issuer=issuer.crt   (or approve this TPM alone: --this-key)", e.MissingURL, named)
}

// sure asks for a confirmation, where none was given on the command line.
func (t commands) sure(question string, yes bool) error {
	if yes {
		return nil
	}
	if !t.Interactive() {
		return console.Usagef("%s: confirm with --yes", question)
	}
	ok, err := t.Confirm(question)
	if err == nil && !ok {
		err = fault.New(fault.Denied, "not confirmed, nothing was changed").WithReason("not_confirmed")
	}
	return err
}

func (t commands) approveKey(ctx context.Context, c *client.Cluster, e fleet.Endorsement, yes bool) error {
	if err := t.sure(fmt.Sprintf("Let device %q enroll with this endorsement key, and with no other?", e.AssetTag), yes); err != nil {
		return err
	}
	if err := fleet.Of(c).Approve(ctx, client.DeviceRef{ID: e.DeviceID}, e.EKHash); err != nil {
		return err
	}
	fmt.Fprintf(t.Out, "The endorsement key of device %q is approved. On the device: tsh device enroll\n", e.AssetTag)
	return nil
}

func (t commands) trustAuthorities(ctx context.Context, c *client.Cluster, e fleet.Endorsement, yes bool) error {
	top := e.Chain[len(e.Chain)-1]
	if err := t.sure(fmt.Sprintf("Trust every TPM that %q vouches for?", top.Subject), yes); err != nil {
		return err
	}
	res, err := c.Get(ctx, manifest.Cap, manifest.CapName)
	if err != nil {
		return err
	}
	set, ok := res.Spec.(*cluster.Settings)
	if !ok {
		return errors.New("the cluster's settings are something else")
	}
	set.DeviceTrust.EKCertAllowedCAs = append(set.DeviceTrust.EKCertAllowedCAs, e.Authorities)
	if _, err := c.Write(ctx, []*manifest.Resource{res}, true); err != nil {
		return err
	}
	for _, l := range e.Chain[1:] {
		fmt.Fprintf(t.Out, "%q is among ekcert_allowed_cas now\n", console.Safe(l.Subject))
	}
	fmt.Fprintln(t.Out, "On the device: tsh device enroll")
	return nil
}

// readIssuers reads certificates from files, as PEM.
func readIssuers(files []string) (string, error) {
	var out strings.Builder
	for _, name := range files {
		raw, err := os.ReadFile(name)
		if err != nil {
			return "", fault.New(fault.Invalid, "--issuer: %v", err).WithReason("bad_issuers")
		}
		if b, _ := pem.Decode(raw); b == nil {
			raw = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})
		}
		out.Write(raw)
		out.WriteByte('\n')
	}
	return out.String(), nil
}
