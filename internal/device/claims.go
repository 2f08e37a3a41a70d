package device

// Claims are the facts about a device that a certificate was issued on. OSVersion is what the device says of itself;
// SecureBoot comes from a quoted event log alone, and is nil where nothing proved it either way.
type Claims struct {
	OSVersion  string `json:"os_version,omitempty"`
	SecureBoot *bool  `json:"secure_boot,omitempty"`
	// CountersBack is whether the TPM's counters went back, and nobody has accepted it.
	CountersBack bool `json:"counters_back,omitempty"`
}
