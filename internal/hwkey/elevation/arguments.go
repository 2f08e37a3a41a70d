package elevation

import "strconv"

// Command is the hidden command by which the copy is started: `tsh device activate NAME PARENT`.
const Command = "activate"

// Arguments are the copy's command line: the pipe's name, 32 hex digits, and the process that made it. None needs
// quotes.
func Arguments(name string, parent uint32) []string {
	return []string{"device", Command, name, strconv.FormatUint(uint64(parent), 10)}
}
