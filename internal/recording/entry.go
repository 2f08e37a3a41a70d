package recording

import "time"

// Piece is a part of a recording on its way to auth: whole chunks, behind the header at Offset 0. After the Last one nothing
// comes.
type Piece struct {
	Name   string
	Offset int64
	Data   []byte
	Last   bool
}

// State is how far a recording has come.
type State string

// The states.
const (
	Going State = "going"     // more of it comes
	Whole State = "whole"     // with its end
	Short State = "cut_short" // its agent ended before it did
)

// Entry is what is known of a recording without opening it.
type Entry struct {
	Start
	State    State     `json:"state"`
	Progress Progress  `json:"progress"`
	Length   int64     `json:"length"`           // of its file, in bytes
	SHA256   string    `json:"sha256,omitempty"` // of its file, once it is over; the audit log has it too
	Changed  time.Time `json:"changed"`          // when a part of it last came
}

// Query narrows a list of recordings: what is empty does not.
type Query struct {
	Session  string // what its session's id begins with
	User     string
	From, To time.Time
}
