//go:build !linux && !windows && !darwin

package hostinfo

import "github.com/sallyport/sallyport/internal/device"

func readOS(*device.Data)      {}
func readSerials(*device.Data) {}
