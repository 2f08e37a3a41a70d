package inventory

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/google/uuid"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/store"
)

// Token is a device's enrollment token as it is stored: without its secret.
type Token struct {
	DeviceID  string    `json:"-"`
	Hash      []byte    `json:"hash"`
	Owner     string    `json:"owner,omitempty"`
	CreatedBy string    `json:"created_by,omitempty"`
	ByAdmin   bool      `json:"by_admin,omitempty"`
	Expires   time.Time `json:"expires"`
}

// NewToken makes the printed token of a device and the operation that stores it in place of an older one.
func NewToken(id string, t Token) (printed string, op store.Op, err error) {
	device, err := uuid.Parse(id)
	if err != nil {
		return "", op, fmt.Errorf("device id: %w", err)
	}
	secret := make([]byte, 24)
	rand.Read(secret)
	sum := sha256.Sum256(secret)
	t.Hash = sum[:]
	raw, err := json.Marshal(t)
	return base64.RawURLEncoding.EncodeToString(append(device[:], secret...)), store.Put(tokenKey(id), raw).Until(t.Expires), err
}

// InvalidToken is the one fault of every token that does not open.
func InvalidToken() *fault.Error {
	return fault.New(fault.Denied, "invalid device enrollment token").WithReason("invalid_device_token").
		WithCause("it is unknown, was used, is over, or was replaced by a newer one").
		WithFix("ask a device admin: tctl devices enroll --asset-tag=TAG")
}

// Token finds a printed token. The operations spend it: they fail when another was faster.
func (v *Inventory) Token(ctx context.Context, printed string) (Token, []store.Op, error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(printed)
	if err != nil || len(raw) != 40 {
		return Token{}, nil, InvalidToken()
	}
	id := uuid.UUID(raw[:16]).String()
	rec, err := v.store.Get(ctx, tokenKey(id))
	if errors.Is(err, store.ErrNotFound) {
		return Token{}, nil, InvalidToken()
	}
	if err != nil {
		return Token{}, nil, err
	}
	t := Token{DeviceID: id}
	if err := json.Unmarshal(rec.Value, &t); err != nil {
		return Token{}, nil, fmt.Errorf("stored %s: %w", rec.Key, err)
	}
	sum := sha256.Sum256(raw[16:])
	if subtle.ConstantTimeCompare(sum[:], t.Hash) != 1 {
		return Token{}, nil, InvalidToken()
	}
	return t, []store.Op{store.CheckRevision(rec.Key, rec.Revision), store.Delete(rec.Key)}, nil
}

// Tokens lists every token.
func (v *Inventory) Tokens(ctx context.Context) ([]Token, error) {
	var out []Token
	after := ""
	for {
		page, err := v.store.List(ctx, store.Range{Prefix: "devicetoken/", After: after})
		if err != nil {
			return nil, err
		}
		for _, rec := range page.Records {
			var t Token
			if err := json.Unmarshal(rec.Value, &t); err != nil {
				return nil, fmt.Errorf("stored %s: %w", rec.Key, err)
			}
			t.DeviceID, _ = url.PathUnescape(rec.Key[len("devicetoken/"):])
			out, after = append(out, t), rec.Key
		}
		if !page.More {
			return out, nil
		}
	}
}

// DeleteToken is the operation that takes a device's token back.
func DeleteToken(id string) store.Op { return store.Delete(tokenKey(id)) }

// TokenTaken reports whether a conflict is about a token that another spent.
func TokenTaken(err error) bool {
	var c *store.ConflictError
	return errors.As(err, &c) && len(c.Key) > 12 && c.Key[:12] == "devicetoken/"
}
