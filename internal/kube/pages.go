package kube

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
)

// pages seals the ways to the next page of lists that are looked through: the API server writes the name of the last object
// into them, which may be one that is withheld.
type pages struct{ cipher.AEAD }

func newPages() pages {
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
	return pages{aead}
}

func (p pages) seal(token string) string {
	nonce := make([]byte, p.NonceSize())
	_, _ = rand.Read(nonce) // never fails
	return base64.RawURLEncoding.EncodeToString(p.Seal(nonce, nonce, []byte(token), nil))
}

func (p pages) open(sealed string) (string, error) {
	raw, err := base64.RawURLEncoding.DecodeString(sealed)
	if err != nil || len(raw) < p.NonceSize() {
		return "", errors.New("no way to a next page of this door's")
	}
	token, err := p.Open(nil, raw[:p.NonceSize()], raw[p.NonceSize():], nil)
	return string(token), err
}

// hide takes out of a list's metadata what tells of objects that are not in it: the last one's name, and how many follow.
func (p pages) hide(raw json.RawMessage) (json.RawMessage, error) {
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

// page is the query to send on in the place of the client's, with the way to the next page as the server gave it; empty
// where the client's is to stay.
func (x *exchange) page(r *http.Request) (string, error) {
	q := r.URL.Query()
	at, has := q["continue"]
	if !has || len(at) == 1 && at[0] == "" || !x.session.Filters() {
		return "", nil
	}
	if len(at) != 1 {
		return "", errors.New("continue is there more than once")
	}
	token, err := x.door.pages.open(at[0])
	q.Set("continue", token)
	return q.Encode(), err
}
