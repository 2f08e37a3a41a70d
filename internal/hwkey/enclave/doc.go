// Package enclave keeps device and session keys in the Secure Enclave of a Mac.
//
// A key is made there and never leaves it. What is kept in a file is its blob, wrapped by the enclave, which only this
// enclave unwraps, beside the public key: the program needs no signature for that. Where the system hands out no blob,
// the key is made permanent in the data protection keychain and the file names it; for that macOS wants a program in a
// signed bundle, and says OSStatus -34018 to others.
//
// The blob is the attribute `toid` of a key (kSecAttrTokenOID of Apple's published Security sources, in no public
// header), the same that CryptoKit calls dataRepresentation. SecKeyCreateWithData gives the key of a blob that comes
// under this attribute; without it, or where the system takes no notice of it, it makes a new key: so each key that is
// loaded is compared with the public key of its file.
//
// It builds on Linux for its tests alone.
package enclave
