// Package ekroots reads the authorities of TPM makers from files.
package ekroots

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/internal/fault"
)

// maxAuthorities bounds one file of authorities, in bytes.
const maxAuthorities = 1 << 20

// Read reads the paths among ekcert_allowed_cas: files of PEM or of one DER certificate, and directories of
// such files.
func Read(paths []string) ([]string, error) {
	var out []string
	for _, p := range paths {
		files, err := authorityFiles(p)
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			text, err := readAuthority(f)
			if err != nil {
				return nil, err
			}
			out = append(out, text)
		}
	}
	return out, nil
}

// authorityFiles is a file, or those of a directory by name: .pem, .crt, .cer and .der.
func authorityFiles(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, badAuthority("%v", err)
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, badAuthority("%v", err)
	}
	var out []string
	for _, e := range entries {
		if slices.Contains([]string{".pem", ".crt", ".cer", ".der"}, strings.ToLower(filepath.Ext(e.Name()))) && !e.IsDir() {
			out = append(out, filepath.Join(path, e.Name()))
		}
	}
	if len(out) == 0 {
		return nil, badAuthority("%s holds no file that ends in .pem, .crt, .cer or .der", path)
	}
	return out, nil
}

func readAuthority(file string) (string, error) {
	info, err := os.Stat(file)
	if err != nil {
		return "", badAuthority("%v", err)
	}
	if info.Size() > maxAuthorities {
		return "", badAuthority("%s has more than %d bytes", file, maxAuthorities)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		return "", badAuthority("%v", err)
	}
	if b, _ := pem.Decode(raw); b != nil {
		return string(raw), nil
	}
	if _, err := x509.ParseCertificate(raw); err != nil {
		return "", badAuthority("%s holds neither PEM nor a certificate", file)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})), nil
}

func badAuthority(format string, args ...any) error {
	return fault.New(fault.Invalid, "ekcert_allowed_cas: "+format, args...).WithReason("config")
}
