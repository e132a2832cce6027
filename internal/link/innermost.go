package link

import "net/http"

// Innermost is the innermost writer that w shows.
func Innermost(w http.ResponseWriter) http.ResponseWriter {
	for range 100 { // one may unwrap to itself
		u, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			break
		}
		inner := u.Unwrap()
		if inner == nil {
			break
		}
		w = inner
	}
	return w
}
