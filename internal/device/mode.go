package device

// Mode is how much a cluster or a role wants a trusted device.
type Mode string

// The modes. The empty mode says nothing; whatever is not known counts as required.
const (
	ModeUnset             Mode = ""
	ModeOff               Mode = "off"
	ModeOptional          Mode = "optional"
	ModeRequired          Mode = "required"
	ModeRequiredForHumans Mode = "required-for-humans"
)

// Known reports whether this build knows the mode; the empty one is not a mode.
func (m Mode) Known() bool {
	return m == ModeOff || m == ModeOptional || m == ModeRequired || m == ModeRequiredForHumans
}

// strictness orders modes; unknown ones are the strictest.
func (m Mode) strictness() int {
	switch m {
	case ModeUnset:
		return 0
	case ModeOff:
		return 1
	case ModeOptional:
		return 2
	case ModeRequiredForHumans:
		return 3
	}
	return 4
}

// Stricter reports whether m is stricter than other.
func (m Mode) Stricter(other Mode) bool { return m.strictness() > other.strictness() }

// Demands reports whether the mode asks for a device. required-for-humans does too: a bot may meet it by a pinned
// address instead.
func (m Mode) Demands() bool { return m != ModeUnset && m != ModeOff && m != ModeOptional }
