package hwkey

// Each platform has in one file
//
//	MakeDir(path) error                          a directory, and those above it, for its owner alone; one that is
//	                                             there stays as it is
//	CreateTemp(dir) (*os.File, error)            a new file of a random name, for its owner alone from the start
//	exposed(path, fs.FileInfo) (string, bool)    whether others than the owner (and, on Windows, administrators and the
//	                                             system) may read a file, and what mends it
