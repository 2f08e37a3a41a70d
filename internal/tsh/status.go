package tsh

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/tsh/tool"
)

// shown is a login as `tsh status` shows it.
type shown struct {
	ProfileURL string        `json:"profile_url"`
	User       string        `json:"user"`
	Cluster    string        `json:"cluster"`
	Roles      []string      `json:"roles"`
	Logins     []string      `json:"logins"`
	Kubernetes bool          `json:"kubernetes_enabled"`
	ValidUntil time.Time     `json:"valid_until"`
	Device     *shownDevice  `json:"device,omitempty"`
	Extensions []string      `json:"extensions"`
	left       time.Duration // until it ends
}

type shownDevice struct {
	ID           string `json:"device_id"`
	AssetTag     string `json:"asset_tag"`
	OS           string `json:"os_type"`
	CredentialID string `json:"credential_id"`
	Level        string `json:"level"`
	SessionKey   string `json:"session_key"`
	SecureBoot   *bool  `json:"secure_boot,omitempty"`
}

func (a *app) statusCommand() *cobra.Command {
	var format string
	c := &cobra.Command{Use: "status", Short: "Show the current login", Example: "  tsh status\n  tsh status --format=json", Args: tool.Exactly(0),
		RunE: func(*cobra.Command, []string) error {
			s, err := a.Read()
			if err != nil && (!fault.Because(err, "expired") || s.Login == nil) {
				return err
			}
			if perr := a.printStatus(s, console.Format(format)); perr != nil {
				return perr
			}
			return err
		}}
	c.Flags().StringVar(&format, "format", "text", "text, json or yaml")
	return c
}

func (a *app) printStatus(s *tool.State, format console.Format) error {
	u := s.Login.Identity
	v := shown{ProfileURL: "https://" + s.Profile.Proxy, User: u.Name, Cluster: u.Cluster, Roles: slices.Sorted(slices.Values(u.Roles)),
		Logins: []string{}, ValidUntil: u.Validity.Expires, Extensions: u.Extensions(), left: u.Validity.Expires.Sub(a.Now())}
	for _, p := range s.Login.SSH.ValidPrincipals {
		if !strings.HasPrefix(p, "-sallyport-nologin-") {
			v.Logins = append(v.Logins, p)
		}
	}
	v.Kubernetes = len(u.Traits["kubernetes_groups"]) > 0
	if d := u.Device; d != nil {
		key := "a file on the enrolled device"
		switch {
		case u.KeyPolicy == identity.KeyHardware && strings.HasPrefix(string(d.Level), "tpm"):
			key = "session key in the enrolled TPM"
		case u.KeyPolicy == identity.KeyHardware:
			key = "session key in the Secure Enclave"
		default:
			key = "session key in " + key
		}
		v.Device = &shownDevice{d.ID, d.AssetTag, d.OS.Title(), d.CredentialID, string(d.Level), key, d.Claims.SecureBoot}
	}
	return format.Print(a.Out, v, v.text)
}

// text is the guide's shape.
func (v shown) text(w io.Writer) error {
	first := true
	line := func(name, value string) {
		mark := "  "
		if first {
			mark, first = "> ", false
		}
		fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("%s%-20s%s", mark, name+":", console.Safe(value)), " "))
	}
	line("Profile URL", v.ProfileURL)
	line("Logged in as", v.User)
	line("Cluster", v.Cluster)
	line("Roles", strings.Join(v.Roles, ", "))
	line("Logins", strings.Join(v.Logins, ", "))
	line("Kubernetes", map[bool]string{true: "enabled", false: "disabled"}[v.Kubernetes])
	left := "[EXPIRED]"
	if v.left > 0 {
		left = fmt.Sprintf("[valid for %s]", spell(v.left))
	}
	line("Valid until", v.ValidUntil.Local().Format("2006-01-02 15:04:05 -0700 MST")+" "+left)
	if d := v.Device; d != nil {
		text := fmt.Sprintf("%s (%s), %s, %s", d.AssetTag, d.OS, d.Level, d.SessionKey)
		if d.SecureBoot != nil {
			text += ", Secure Boot " + map[bool]string{true: "on", false: "off"}[*d.SecureBoot]
		}
		line("Device", text)
	}
	line("Extensions", strings.Join(v.Extensions, ", "))
	return nil
}

// spell prints a span as the guide does: 11h52m0s.
func spell(d time.Duration) string {
	if d < time.Minute {
		return d.Truncate(time.Second).String()
	}
	return d.Round(time.Minute).String()
}
