package shell

import (
	"encoding/binary"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// closeInherited marks what this server itself inherited, and did not open, to be closed at an exec.
func closeInherited() { _ = unix.CloseRange(3, 1<<31-1, unix.CLOSE_RANGE_CLOEXEC) }

// waitUnreaped waits for a process to end without taking its id out of use, so that its group can still be killed
// and no signal goes to a stranger who got the number.
func waitUnreaped(pid int) (Exit, bool) {
	var info unix.Siginfo
	for {
		err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOWAIT, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return Exit{}, false
		}
		break
	}
	// waitid(2): si_code says how, si_status with what; x/sys leaves the union out. It begins at the first multiple of
	// a pointer's size behind three ints, and si_status is its third int.
	union := (3*4 + unsafe.Sizeof(uintptr(0)) - 1) &^ (unsafe.Sizeof(uintptr(0)) - 1)
	status := *(*int32)(unsafe.Add(unsafe.Pointer(&info), union+8))
	switch info.Code {
	case cldExited:
		return Exit{Status: int(status)}, true
	case cldKilled, cldDumped:
		return bySignal(syscall.Signal(status), info.Code == cldDumped), true
	}
	return Exit{}, false
}

// The si_code values of waitid(2).
const (
	cldExited = 1
	cldKilled = 2
	cldDumped = 3
)

// foreground is the process group that the terminal's input goes to.
func foreground(terminal *os.File) (int, bool) {
	if terminal == nil {
		return 0, false
	}
	raw, err := terminal.SyscallConn()
	if err != nil {
		return 0, false
	}
	group := 0
	_ = raw.Control(func(fd uintptr) { group, err = unix.IoctlGetInt(int(fd), unix.TIOCGPGRP) })
	return group, err == nil && group > 1
}

// A mode of RFC 4254 section 8 is a character, a flag in one of the four words, or passed over.
var (
	characters = map[byte]int{1: unix.VINTR, 2: unix.VQUIT, 3: unix.VERASE, 4: unix.VKILL, 5: unix.VEOF, 6: unix.VEOL,
		7: unix.VEOL2, 8: unix.VSTART, 9: unix.VSTOP, 10: unix.VSUSP, 12: unix.VREPRINT, 13: unix.VWERASE,
		14: unix.VLNEXT, 18: unix.VDISCARD}
	inputFlags = map[byte]uint32{30: unix.IGNPAR, 31: unix.PARMRK, 32: unix.INPCK, 33: unix.ISTRIP, 34: unix.INLCR,
		35: unix.IGNCR, 36: unix.ICRNL, 37: unix.IUCLC, 38: unix.IXON, 39: unix.IXANY, 40: unix.IXOFF,
		41: unix.IMAXBEL, 42: unix.IUTF8}
	localFlags = map[byte]uint32{50: unix.ISIG, 51: unix.ICANON, 52: unix.XCASE, 53: unix.ECHO, 54: unix.ECHOE,
		55: unix.ECHOK, 56: unix.ECHONL, 57: unix.NOFLSH, 58: unix.TOSTOP, 59: unix.IEXTEN, 60: unix.ECHOCTL,
		61: unix.ECHOKE, 62: unix.PENDIN}
	outputFlags = map[byte]uint32{70: unix.OPOST, 71: unix.OLCUC, 72: unix.ONLCR, 73: unix.OCRNL, 74: unix.ONOCR,
		75: unix.ONLRET}
	controlFlags = map[byte]uint32{92: unix.PARENB, 93: unix.PARODD}
)

// setModes applies the modes that a client sends for its terminal, as far as they are known.
func setModes(f *os.File, modes []byte) {
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		t, err := unix.IoctlGetTermios(int(fd), unix.TCGETS)
		if err != nil {
			return
		}
		applyModes(t, modes)
		_ = unix.IoctlSetTermios(int(fd), unix.TCSETS, t)
	})
}

// applyModes reads opcodes 1 to 159, each with a uint32, up to opcode 0 or what cannot be read.
func applyModes(t *unix.Termios, modes []byte) {
	for len(modes) >= 5 && modes[0] > 0 && modes[0] < 160 {
		op, value := modes[0], binary.BigEndian.Uint32(modes[1:5])
		modes = modes[5:]
		if i, ok := characters[op]; ok {
			t.Cc[i] = byte(value) // 255 is "none" in both
			if value == 255 {
				t.Cc[i] = 0
			}
			continue
		}
		for _, w := range []struct {
			flags map[byte]uint32
			word  *uint32
		}{{inputFlags, &t.Iflag}, {localFlags, &t.Lflag}, {outputFlags, &t.Oflag}, {controlFlags, &t.Cflag}} {
			bit, ok := w.flags[op]
			switch {
			case ok && value != 0:
				*w.word |= bit
			case ok:
				*w.word &^= bit
			}
		}
	}
}
