package profile

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// LocalDir is where the certificates of local ports to a cluster lie.
func (h *Home) LocalDir(p *Profile) string { return filepath.Join(h.dir, "local", safe(p.Cluster)) }

// longestSocket is how long a unix socket's path may be on every system (macOS has 104 bytes, with the zero).
const longestSocket = 103

// Socket is a path for a resource's unix socket of a given file name; empty where it would be too long.
func (h *Home) Socket(p *Profile, kind, resource, file string) string {
	sum := sha256.Sum256([]byte(p.Cluster + "\x00" + kind + "\x00" + resource))
	path := filepath.Join(h.dir, "run", hex.EncodeToString(sum[:4]), file)
	if len(path) > longestSocket {
		return ""
	}
	return path
}

func (h *Home) choice(p *Profile, kind, resource string) string {
	return filepath.Join(h.dir, kind, safe(p.Cluster), safe(resource)+".json")
}

// Choose keeps what was chosen for a resource; Choice reads it into a value, and reports whether there is any; Forget
// removes it.
func (h *Home) Choose(p *Profile, kind, resource string, v any) error {
	raw, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return Write(h.choice(p, kind, resource), raw)
}

// Choice is of Choose.
func (h *Home) Choice(p *Profile, kind, resource string, v any) (bool, error) {
	raw, err := os.ReadFile(h.choice(p, kind, resource))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, json.Unmarshal(raw, v)
}

// Choices are all that were kept of a kind, as JSON.
func (h *Home) Choices(p *Profile, kind string) ([]json.RawMessage, error) {
	files, err := filepath.Glob(filepath.Join(h.dir, kind, safe(p.Cluster), "*.json"))
	if err != nil {
		return nil, err
	}
	var out []json.RawMessage
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		out = append(out, raw)
	}
	return out, nil
}

// Forget is of Choose.
func (h *Home) Forget(p *Profile, kind, resource string) error {
	if err := os.Remove(h.choice(p, kind, resource)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
