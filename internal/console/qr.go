package console

import (
	"strings"

	"rsc.io/qr"
)

// QR draws a code: two rows a line where the locale can, else two characters a square. Dark squares are drawn as
// spaces, for terminals with a dark background; the quiet zone (ISO/IEC 18004) is four squares wide.
func QR(c *qr.Code, utf8 bool) string {
	const quiet = 4
	light := func(x, y int) bool { return !c.Black(x, y) }
	var b strings.Builder
	step := 2
	if !utf8 {
		step = 1
	}
	for y := -quiet; y < c.Size+quiet; y += step {
		for x := -quiet; x < c.Size+quiet; x++ {
			if !utf8 {
				b.WriteString(map[bool]string{true: "##", false: "  "}[light(x, y)])
				continue
			}
			b.WriteString(map[[2]bool]string{{true, true}: "█", {true, false}: "▀", {false, true}: "▄", {false, false}: " "}[[2]bool{light(x, y), light(x, y+1)}])
		}
		b.WriteByte('\n')
	}
	return b.String()
}
