package keystore

import (
	"bytes"
	"context"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/store"
)

const (
	sealLabel = "sallyport-keystore-v1"
	sealCheck = "keystore/seal" // a sealed constant: tells a wrong seal key before any key is needed
)

// sealer seals bytes together with names that have to be the same when it opens them.
type sealer struct{ aead cipher.AEAD }

func (s sealer) seal(plain []byte, names ...string) []byte {
	nonce := make([]byte, s.aead.NonceSize(), s.aead.NonceSize()+len(plain)+s.aead.Overhead())
	_, _ = rand.Read(nonce) // never fails: it ends the program instead
	return s.aead.Seal(nonce, nonce, plain, bind(names))
}

func (s sealer) open(box []byte, names ...string) ([]byte, error) {
	n := s.aead.NonceSize()
	if len(box) < n {
		return nil, errors.New("sealed bytes are too short")
	}
	return s.aead.Open(nil, box[:n], box[n:], bind(names))
}

func bind(names []string) []byte {
	b := []byte(sealLabel)
	for _, n := range names {
		b = binary.BigEndian.AppendUint32(b, uint32(len(n)))
		b = append(b, n...)
	}
	return b
}

// openSeal reads or creates the seal key file and compares it with the state.
func openSeal(ctx context.Context, s store.Store, file string) (sealer, error) {
	check, err := s.Get(ctx, sealCheck)
	fresh := errors.Is(err, store.ErrNotFound)
	if err != nil && !fresh {
		return sealer{}, fmt.Errorf("read seal check: %w", err)
	}
	key, err := readSealKey(file)
	if errors.Is(err, fs.ErrNotExist) && fresh {
		key, err = createSealKey(file)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return sealer{}, fault.New(fault.Invalid, "the seal key file %s is missing", file).
			WithReason("seal_key_missing").WithCause("the signing keys in the cluster's state are sealed with it").
			WithFix("copy the file from another auth server, or from a backup, to %s", file)
	}
	if err != nil {
		return sealer{}, err
	}
	aead, err := chacha20poly1305.NewX(key)
	clear(key)
	if err != nil {
		return sealer{}, fmt.Errorf("seal key: %w", err)
	}
	seal := sealer{aead: aead}
	if fresh {
		op := store.Create(sealCheck, seal.seal([]byte(sealLabel), sealCheck))
		if _, err = s.Txn(ctx, []store.Op{op}); err == nil {
			return seal, nil
		}
		if !errors.Is(err, store.ErrConflict) {
			return sealer{}, fmt.Errorf("store seal check: %w", err)
		}
		if check, err = s.Get(ctx, sealCheck); err != nil {
			return sealer{}, fmt.Errorf("read seal check: %w", err)
		}
	}
	if plain, err := seal.open(check.Value, sealCheck); err != nil || string(plain) != sealLabel {
		return sealer{}, fault.New(fault.Invalid, "the seal key file %s is not the one that this cluster's keys are sealed with", file).
			WithReason("seal_key_wrong").WithCause("it belongs to another cluster, or was replaced").
			WithFix("copy the file from another auth server, or from a backup, to %s", file)
	}
	return seal, nil
}

// readSealKey takes 64 hex digits and a newline. Its errors never quote the file.
func readSealKey(file string) ([]byte, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("seal key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fault.New(fault.Invalid, "the seal key file %s may be read by others than its owner", file).
			WithReason("seal_key_exposed").WithFix("chmod 600 %s", file)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("seal key: %w", err)
	}
	defer clear(text)
	key := make([]byte, chacha20poly1305.KeySize)
	trimmed := bytes.TrimSpace(text)
	if len(trimmed) == hex.EncodedLen(len(key)) {
		if _, err := hex.Decode(key, trimmed); err == nil {
			return key, nil
		}
	}
	return nil, fault.New(fault.Invalid, "the seal key file %s does not hold a key", file).
		WithReason("seal_key_damaged").WithCause("64 hexadecimal digits are expected").
		WithFix("copy the file from another auth server, or from a backup, to %s", file)
}

// createSealKey makes the file whole or not at all: written aside, then linked to its name, which fails where another
// process was faster; its key is then the one read.
func createSealKey(file string) ([]byte, error) {
	key := make([]byte, chacha20poly1305.KeySize)
	_, _ = rand.Read(key)
	tmp, err := os.CreateTemp(filepath.Dir(file), ".seal-*") // 0600
	if err != nil {
		return nil, fmt.Errorf("create seal key: %w", err)
	}
	defer os.Remove(tmp.Name())
	_, err = fmt.Fprintf(tmp, "%x\n", key)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Link(tmp.Name(), file)
	}
	if errors.Is(err, fs.ErrExist) {
		return readSealKey(file)
	}
	if err != nil {
		return nil, fmt.Errorf("create seal key: %w", err)
	}
	return key, syncDir(filepath.Dir(file))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}
