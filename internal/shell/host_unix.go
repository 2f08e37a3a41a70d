//go:build unix && !linux

package shell

import "os"

func closeInherited()                 {}
func waitUnreaped(int) (Exit, bool)   { return Exit{}, false }
func foreground(*os.File) (int, bool) { return 0, false }
func setModes(*os.File, []byte)       {}
