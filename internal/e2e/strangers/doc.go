// Package strangers runs programs that nobody here wrote: proxies in front of a
// server, with the configurations of docs/deploy.md, and peers with libraries of their
// own. Where they are not installed its tests are skipped, but for .ci/run, which
// installs them.
//
// The peers are short programs in testdata, as their libraries' documents would have
// them: clients that print what they saw of a server of ours (clients_test.go has
// what that is), and servers that servers_test.go calls.
package strangers
