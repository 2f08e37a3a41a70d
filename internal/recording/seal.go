package recording

import (
	"bytes"
	"compress/flate"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
)

// The suite of RFC 9180 that a recording's key is sealed with. Its KEM is the hybrid of ML-KEM-768 and X25519 (draft-ietf-hpke-pq):
// who keeps sealed recordings until there is a quantum computer has nothing then.
func suite() (hpke.KEM, hpke.KDF, hpke.AEAD) {
	return hpke.MLKEM768X25519(), hpke.HKDFSHA256(), hpke.AES256GCM()
}

const (
	magic     = "sallyrec"
	version   = 1
	label     = "sallyport-recording-v1"
	keyLength = 32
	idLength  = 8
	saltSize  = 16
	maxSealed = MaxChunk + 4<<10 // of one chunk, what compression may add and the tag included
	maxKey    = 4 << 10          // of a sealed key
	chunkHead = 4 + 4 + 1 + 4    // length, number, flags, checksum
)

// Flags of a chunk.
const (
	flagFinal      = 1 << 0
	flagCompressed = 1 << 1
)

// castagnoli takes a quarter of a millisecond to make, which programs that record nothing do not spend.
var castagnoli = sync.OnceValue(func() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) })

// ErrDamaged is what is wrong with bytes that are no recording, or not any more.
var ErrDamaged = errors.New("the recording is damaged")

// Recipient is whom recordings are sealed for: a public key of the cluster's.
type Recipient struct {
	key hpke.PublicKey
	id  [idLength]byte
}

// NewRecipient reads a public key, as Identity.Public gives it.
func NewRecipient(public []byte) (*Recipient, error) {
	kem, _, _ := suite()
	key, err := kem.NewPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("recording key: %w", err)
	}
	return &Recipient{key, keyID(public)}, nil
}

// Public is what NewRecipient took.
func (r *Recipient) Public() []byte { return r.key.Bytes() }

func keyID(public []byte) (id [idLength]byte) {
	sum := sha256.Sum256(public)
	copy(id[:], sum[:])
	return id
}

// Envelope is a secret, sealed for a recipient, of which the keys of recordings are made: sealing takes a fifth of a
// millisecond, too long for each of many short commands. Who uses one for longer gives away more with it.
type Envelope struct {
	id     [idLength]byte
	sealed []byte
	secret []byte
}

// NewEnvelope seals a new secret.
func NewEnvelope(to *Recipient) (*Envelope, error) {
	e := &Envelope{id: to.id, secret: make([]byte, keyLength)}
	_, _ = rand.Read(e.secret) // never fails
	_, kdf, aead := suite()
	var err error
	if e.sealed, err = hpke.Seal(to.key, kdf, aead, []byte(label), e.secret); err != nil {
		return nil, fmt.Errorf("seal recording key: %w", err)
	}
	return e, nil
}

// Identity opens what is sealed for its Recipient.
type Identity struct {
	key hpke.PrivateKey
	id  [idLength]byte
}

// NewIdentity reads a private key; nil makes a new one.
func NewIdentity(private []byte) (*Identity, error) {
	kem, _, _ := suite()
	var key hpke.PrivateKey
	var err error
	if private == nil {
		key, err = kem.GenerateKey()
	} else {
		key, err = kem.NewPrivateKey(private)
	}
	if err != nil {
		return nil, fmt.Errorf("recording key: %w", err)
	}
	return &Identity{key, keyID(key.PublicKey().Bytes())}, nil
}

// Private is what NewIdentity takes.
func (i *Identity) Private() ([]byte, error) { return i.key.Bytes() }

// Recipient is whom it opens for.
func (i *Identity) Recipient() *Recipient { return &Recipient{i.key.PublicKey(), i.id} }

// Public is what NewRecipient takes.
func (i *Identity) Public() []byte { return i.key.PublicKey().Bytes() }

// Header begins a recording: its name, and the secret that its key is made of, sealed.
type Header struct {
	Name  string
	keyID [idLength]byte
	salt  [saltSize]byte
	key   []byte            // the sealed secret
	sum   [sha256.Size]byte // of the header's bytes: every chunk is bound to it
}

// aead is what seals the recording's chunks, by a key of its own: HKDF (RFC 5869) of the secret, its salt and its name.
func (h *Header) aead(secret []byte) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, secret, h.salt[:], label+"\x00"+h.Name, keyLength)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	return newAEAD(key)
}

// append appends the header's bytes: magic, version, name and sealed secret with their lengths in 16 bits, the key's id and the
// salt between.
func (h *Header) append(dst []byte) []byte {
	dst = append(append(dst, magic...), version)
	dst = append(binary.BigEndian.AppendUint16(dst, uint16(len(h.Name))), h.Name...)
	dst = append(append(dst, h.keyID[:]...), h.salt[:]...)
	return append(binary.BigEndian.AppendUint16(dst, uint16(len(h.key))), h.key...)
}

// ReadHeader reads a header, and says how many bytes it has.
func ReadHeader(r io.Reader) (*Header, int64, error) {
	fixed := make([]byte, len(magic)+1+2)
	if _, err := io.ReadFull(r, fixed); err != nil || string(fixed[:len(magic)]) != magic {
		return nil, 0, ErrDamaged
	}
	if v := fixed[len(magic)]; v != version {
		return nil, 0, fmt.Errorf("a recording of version %d, which is newer than this program", v)
	}
	rest := make([]byte, int(binary.BigEndian.Uint16(fixed[len(magic)+1:]))+idLength+saltSize+2)
	if len(rest) > 64+idLength+saltSize+2 {
		return nil, 0, ErrDamaged
	}
	if _, err := io.ReadFull(r, rest); err != nil {
		return nil, 0, ErrDamaged
	}
	n := len(rest) - idLength - saltSize - 2
	h := &Header{Name: string(rest[:n])}
	copy(h.keyID[:], rest[n:])
	copy(h.salt[:], rest[n+idLength:])
	length := int(binary.BigEndian.Uint16(rest[n+idLength+saltSize:]))
	if length > maxKey || !ValidName(h.Name) {
		return nil, 0, ErrDamaged
	}
	h.key = make([]byte, length)
	if _, err := io.ReadFull(r, h.key); err != nil {
		return nil, 0, ErrDamaged
	}
	raw := h.append(nil)
	h.sum = sha256.Sum256(raw)
	return h, int64(len(raw)), nil
}

// Sealer makes a recording's chunks, one after the other.
type Sealer struct {
	aead   cipher.AEAD
	header Header
	number uint32
}

// NewSealer begins a recording and appends its header to dst.
func NewSealer(dst []byte, e *Envelope, name string) (*Sealer, []byte, error) {
	if !ValidName(name) {
		return nil, nil, errors.New("a recording without a name")
	}
	h := Header{Name: name, keyID: e.id, key: e.sealed}
	_, _ = rand.Read(h.salt[:]) // never fails
	raw := h.append(nil)
	h.sum = sha256.Sum256(raw)
	aead, err := h.aead(e.secret)
	return &Sealer{aead: aead, header: h}, append(dst, raw...), err
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// flater compresses a chunk into memory of its own, which sessions that show nothing do not hold.
type flater struct {
	*flate.Writer
	out bytes.Buffer
}

var flaters = sync.Pool{New: func() any {
	w, _ := flate.NewWriter(nil, flate.BestSpeed) // of the level alone
	return &flater{Writer: w}
}}

// smallest is what is compressed; less gains nothing.
const smallest = 1 << 10

// Chunk seals frames, at most MaxChunk bytes of them, and appends the chunk to dst. The final one ends the recording. Without
// compress it costs a fraction of the time.
func (s *Sealer) Chunk(dst, frames []byte, final, compress bool) ([]byte, error) {
	if len(frames) > MaxChunk {
		return nil, errors.New("a chunk that is too long")
	}
	var flags byte
	if final {
		flags |= flagFinal
	}
	plain := frames
	if compress && len(frames) >= smallest {
		w, _ := flaters.Get().(*flater)
		defer flaters.Put(w)
		w.out.Reset()
		w.Reset(&w.out)
		_, err := w.Write(frames)
		if err = errors.Join(err, w.Close()); err != nil {
			return nil, err
		}
		if w.out.Len() < len(frames) {
			plain, flags = w.out.Bytes(), flags|flagCompressed
		}
	}
	at := len(dst)
	dst = appendHead(dst, uint32(len(plain)+s.aead.Overhead()), s.number, flags)
	dst = s.aead.Seal(dst, nonce(s.number), plain, aad(&s.header, dst[at:at+9]))
	binary.BigEndian.PutUint32(dst[at+9:], checksum(dst[at:]))
	s.number++
	return dst, nil
}

func appendHead(dst []byte, length, number uint32, flags byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, length)
	dst = binary.BigEndian.AppendUint32(dst, number)
	return append(dst, flags, 0, 0, 0, 0)
}

// nonce is a chunk's number: a key seals one recording alone.
func nonce(number uint32) []byte {
	return binary.BigEndian.AppendUint32(make([]byte, 8, 12), number)
}

// aad binds a chunk to its recording, its place and its flags.
func aad(h *Header, head []byte) []byte {
	return append(append(make([]byte, 0, sha256.Size+len(head)), h.sum[:]...), head...)
}

// checksum is over a whole chunk but for itself.
func checksum(chunk []byte) uint32 {
	return crc32.Update(crc32.Checksum(chunk[:9], castagnoli()), castagnoli(), chunk[chunkHead:])
}
