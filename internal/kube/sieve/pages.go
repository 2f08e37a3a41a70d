package sieve

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
)

// Pages seals the ways to the next page of lists that are looked through: the API server writes the name of the last object
// into them, which may be one that is withheld.
type Pages struct{ cipher.AEAD }

// NewPages seals by a key of its own.
func NewPages() Pages {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // of the key's length alone
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // of the block's size alone
	}
	return Pages{aead}
}

func (p Pages) seal(token string) string {
	nonce := make([]byte, p.NonceSize())
	_, _ = rand.Read(nonce) // never fails
	return base64.RawURLEncoding.EncodeToString(p.AEAD.Seal(nonce, nonce, []byte(token), nil))
}

// Continue gives back what a way to a next page sealed.
func (p Pages) Continue(sealed string) (string, error) {
	raw, err := base64.RawURLEncoding.DecodeString(sealed)
	if err != nil || len(raw) < p.NonceSize() {
		return "", errors.New("no way to a next page of this door's")
	}
	token, err := p.AEAD.Open(nil, raw[:p.NonceSize()], raw[p.NonceSize():], nil)
	return string(token), err
}

// hide takes out of a list's metadata what tells of objects that are not in it: the last one's name, and how many follow.
func (p Pages) hide(raw json.RawMessage) (json.RawMessage, error) {
	var meta map[string]json.RawMessage
	if err := json.Unmarshal(raw, &meta); err != nil || meta == nil {
		return raw, err
	}
	delete(meta, "remainingItemCount")
	if raw, has := meta["continue"]; has {
		var token string
		if err := json.Unmarshal(raw, &token); err != nil {
			return nil, err
		}
		if token != "" {
			token = p.seal(token)
		}
		meta["continue"], _ = json.Marshal(token)
	}
	return json.Marshal(meta)
}
