package sql

import (
	"slices"
	"strings"
)

// Do is what a statement does with the name of a prepared statement or a portal, apart from using it.
type Do byte

// What is done. SQL's own statements and the protocol's share their names.
const (
	Executes      Do = iota + 1 // EXECUTE, also in EXPLAIN and CREATE TABLE … AS
	Prepares                    // PREPARE
	Deallocates                 // DEALLOCATE
	DeallocateAll               // DEALLOCATE ALL
	DiscardAll                  // DISCARD ALL
	Declares                    // DECLARE … CURSOR
	Closes                      // CLOSE
	CloseAll                    // CLOSE ALL
	Codes                       // DO with code that can do any of these
	Unclear                     // it cannot be told what
)

// Named is one such deed of a text.
type Named struct {
	Do   Do
	Name string // "" where it cannot be told
}

// MaxNamed is how many are kept of a text: what is behind them is one Unclear.
const MaxNamed = 64

// byTag is what was done, by the tag that the server ends the statement with.
var byTag = map[string]Do{"PREPARE": Prepares, "DEALLOCATE": Deallocates, "DEALLOCATE ALL": DeallocateAll, "DISCARD ALL": DiscardAll,
	"DECLARE CURSOR": Declares, "CLOSE CURSOR": Closes, "CLOSE CURSOR ALL": CloseAll, "DO": Codes}

// ByTag is what the server has done by the tag of its CommandComplete, or 0.
func ByTag(tag string) Do { return byTag[tag] }

// Trackable reports whether a name means the same to the client and the server, whatever the client's encoding: converted
// names are as good as unknown. (SHIFT_JIS_2004 alone has a backslash and a tilde that are not ASCII's.)
func Trackable(name string) bool {
	for i := range len(name) {
		if c := name[i]; c < ' ' || c > '}' || c == '\\' {
			return false
		}
	}
	return true
}

func (r *Text) does(d Do, name string) {
	switch n := len(r.Names); {
	case n < MaxNamed:
		r.Names = append(r.Names, Named{d, strings.Clone(name)})
	case n == MaxNamed:
		r.Names = append(r.Names, Named{Do: Unclear})
	}
}

// opens are the statements that a name follows at once.
var opens = map[string]Do{"prepare": Prepares, "deallocate": Deallocates, "declare": Declares, "close": Closes}

// names looks at a word, or a quoted name, for what it names.
func (r *reader) names(w string, quoted bool) {
	before := r.last[0]
	switch d := opens[before]; {
	case d == Deallocates && r.first == before && !quoted && w == "all":
		r.does(DeallocateAll, "")
	case d == Closes && r.first == before && !quoted && w == "all":
		r.does(CloseAll, "")
	case before == "prepare" && r.first == "deallocate" && r.last[1] == "deallocate": // DEALLOCATE PREPARE name
		if n := len(r.Names); n > 0 && r.Names[n-1] == (Named{Deallocates, "prepare"}) {
			r.Names = r.Names[:n-1]
		}
		if !quoted && w == "all" {
			r.does(DeallocateAll, "")
		} else {
			r.does(Deallocates, w)
		}
	case d != 0 && r.first == before && r.last[1] == "":
		r.does(d, w)
	case before == "discard" && r.first == "discard" && !quoted && w == "all":
		r.does(DiscardAll, "")
	case before == "execute" && (r.first == "execute" || r.first == "explain" || r.first == "create" && r.last[1] == "as"):
		r.does(Executes, w)
	}
}

// quotedName is what a name in double quotes is to the server; "" where it is written with code points.
func quotedName(whole, inside string) string {
	if whole[0] != '"' {
		return ""
	}
	return strings.ReplaceAll(inside, `""`, `"`)
}

// code looks at a string for whether it is code that can do what it does not show.
func (r *reader) code(inside string) {
	if r.last[0] == "transaction" && r.last[1] == "prepare" && r.first == "prepare" && len(r.Names) > 0 { // PREPARE TRANSACTION 'x'
		r.Names = r.Names[:len(r.Names)-1]
	}
	if r.first == "do" && slices.ContainsFunc([]string{"exec", "prepare", "deallocate", "discard"}, func(w string) bool { return indexFold(inside, w) >= 0 }) {
		r.does(Codes, "")
	}
}
