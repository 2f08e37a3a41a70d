package redis

import "errors"

// maxDepth bounds how replies nest.
const maxDepth = 128

// Reply is one reply, of whatever length, as it comes in; the zero Reply awaits one.
type Reply struct {
	Kind  byte   // its first byte: `-` is an error, `>` was sent unasked
	Text  []byte // of a line, and of the first string in an aggregate, at most maxText bytes; the next reply overwrites it
	Count int    // the last number among an aggregate's elements
	Null  bool   // it is nothing
	// Errors are those among its elements, the first of each, as they come; who has seen them empties it.
	Errors []Inner
	stack  []int // elements that are still to come, by depth
	skip   int   // bytes of a string that are still to come, with its line's end
	keep   int   // bytes of skip that belong to Text
	attr   bool  // an attribute is being passed, after which the reply comes
	taken  bool  // Text is the first string
	inner  inner
}

// Inner is an error among the elements of a reply.
type Inner struct {
	Element int    // of the reply, from 0, that it is or is in
	Deep    bool   // it is in it
	Text    string // at most maxText bytes
}

// inner is what is needed to find errors among elements.
type inner struct {
	size  int    // elements of the reply
	told  int    // elements up to which an error was found
	attr  int    // the depth of an attribute that is being passed; 0: none
	error bool   // the string that is being passed is an error
	text  []byte // what there is of it
}

const maxText = 512

// IsError reports whether the reply is an error.
func (r *Reply) IsError() bool { return r.Kind == '-' || r.Kind == '!' }

// element is the one that is being passed, of an aggregate's.
func (r *Reply) element() int {
	if len(r.stack) == 0 {
		return 0
	}
	return r.inner.size - r.stack[0]
}

// found notes an error among the elements, but for attributes, which say nothing of them.
func (r *Reply) found(text []byte) {
	at := r.element()
	if r.attr || r.inner.attr > 0 || at < r.inner.told {
		return
	}
	r.inner.told = at + 1
	r.Errors = append(r.Errors, Inner{at, len(r.stack) > 1, string(text[:min(len(text), maxText)])})
}

// Next takes what it can of b and reports how much that is, and whether the reply is complete. Where it is not it wants to
// be called again with what follows; where it takes nothing, with more of the same.
func (r *Reply) Next(b []byte) (n int, done bool, err error) {
	for {
		if r.skip > 0 {
			k := min(r.skip, len(b)-n)
			if keep := min(r.keep, k); keep > 0 {
				r.Text = append(r.Text, b[n:n+keep]...)
				r.keep -= keep
			}
			if r.inner.error {
				k := min(r.skip-2, k, maxText-len(r.inner.text))
				r.inner.text = append(r.inner.text, b[n:n+max(0, k)]...)
			}
			n, r.skip = n+k, r.skip-k
			if r.skip > 0 {
				return n, false, nil
			}
			if r.inner.error {
				r.found(r.inner.text)
				r.inner.error, r.inner.text = false, r.inner.text[:0]
			}
			if r.ends() {
				return n, true, nil
			}
		}
		l, size, err := line(b[n:])
		if errors.Is(err, ErrShort) {
			return n, false, nil
		}
		if err != nil {
			return n, false, err
		}
		if len(l) == 0 {
			return n, false, malformed("an empty reply")
		}
		n += size
		done, err := r.head(l)
		if done || err != nil {
			return n, done, err
		}
	}
}

// Reset makes ready for the next reply.
func (r *Reply) Reset() {
	*r = Reply{Text: r.Text[:0], stack: r.stack[:0], Errors: r.Errors[:0], inner: inner{text: r.inner.text[:0]}}
}

// head takes a line, and reports whether the reply is complete.
func (r *Reply) head(l []byte) (bool, error) {
	top := len(r.stack) == 0
	if top && !r.attr {
		r.Kind = l[0]
	}
	switch l[0] {
	case '+', '-', ':', ',', '(', '#', '_':
		if top {
			r.Text = append(r.Text[:0], l[1:min(len(l), maxText)]...)
			r.Null = l[0] == '_'
		} else if l[0] == ':' {
			r.Count, _ = number(l[1:], 1<<40)
		} else if l[0] == '-' {
			r.found(l[1:])
		}
		return r.ends(), nil
	case '$', '=', '!':
		size, err := number(l[1:], MaxBulk)
		if err != nil {
			return false, err
		}
		if size < 0 {
			r.Null = r.Null || top
			return r.ends(), nil
		}
		r.inner.error = l[0] == '!' && !top
		if !r.taken {
			r.taken, r.Text, r.keep = true, r.Text[:0], min(size, maxText)
		}
		r.skip = size + 2
		return false, nil
	case '*', '~', '>', '%', '|':
		return r.aggregate(l)
	}
	return false, malformed("a reply of an unknown kind")
}

func (r *Reply) aggregate(l []byte) (bool, error) {
	size, err := number(l[1:], 1<<31)
	if err != nil {
		return false, err
	}
	if l[0] == '%' || l[0] == '|' {
		size *= 2
	}
	if l[0] == '|' {
		if len(r.stack) == 0 {
			r.attr, r.Kind = true, 0
		} else {
			r.stack[len(r.stack)-1]++ // an attribute is no element
			if r.inner.attr == 0 && size > 0 {
				r.inner.attr = len(r.stack) + 1
			}
		}
	}
	if len(r.stack) == 0 && l[0] != '|' {
		r.inner.size, r.Null = size, size < 0
	}
	if size <= 0 {
		return r.ends(), nil
	}
	if len(r.stack) >= maxDepth {
		return false, malformed("a reply that nests too deep")
	}
	r.stack = append(r.stack, size)
	return false, nil
}

// ends is that one element ends, and with it those that it is the last of; it reports whether the reply ends.
func (r *Reply) ends() bool {
	for len(r.stack) > 0 {
		top := len(r.stack) - 1
		if r.stack[top]--; r.stack[top] > 0 {
			return false
		}
		r.stack = r.stack[:top]
		if top < r.inner.attr {
			r.inner.attr = 0
		}
	}
	if r.attr {
		r.attr, r.taken = false, false
		return false
	}
	return true
}
