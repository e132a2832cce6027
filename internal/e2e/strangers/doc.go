// Package strangers runs programs that nobody here wrote: proxies in front of a
// server, with the configurations of docs/deploy.md, and peers with libraries of their
// own. Where they are not installed its tests are skipped, but for .ci/run, which
// installs them.
package strangers
