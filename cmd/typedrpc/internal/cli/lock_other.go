//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package cli

import "os"

// locks says that files cannot be locked, as far as this program knows.
const locks = false

func lock(*os.File) (taken bool) { return false }
