package hostinfo

import "strings"

// osRelease reads ID and VERSION_ID (or BUILD_ID, of rolling distributions) of an os-release(5) file.
func osRelease(text string) (id, version string) {
	var build string
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok {
			continue
		}
		if len(value) >= 2 && (value[0] == '"' || value[0] == '\'') && value[len(value)-1] == value[0] {
			value = value[1 : len(value)-1]
		}
		switch name {
		case "ID":
			id = value
		case "VERSION_ID":
			version = value
		case "BUILD_ID":
			build = value
		}
	}
	if version == "" {
		version = build
	}
	return id, version
}
