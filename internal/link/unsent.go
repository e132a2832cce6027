//go:build !linux && !js

package link

import "io"

// unsent is how much memory the kernel holds for what was written to c and the peer's has not
// taken; false: nobody knows.
func unsent(io.Closer) (n int, ok bool) { return 0, false }
