package hwkey

// Finding is one thing that was looked at in a device's hardware: what it is called, what was found, and the fault that
// stands in the way. A Minor fault keeps nobody from trust by itself.
type Finding struct {
	Name  string
	Says  string
	Err   error
	Minor bool
}

// Examiner is a Device whose hardware can be looked at step by step. Looking changes nothing in it, writes no file, and
// stops at the first step that the later ones need.
type Examiner interface {
	Examine() []Finding
}
