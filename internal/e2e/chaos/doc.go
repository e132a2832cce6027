// Package chaos tests what a connection survives: links that break at any byte,
// proxies, peers that are gone without a word, sessions that are lost.
package chaos
