// Package e2e tests package typedrpc from end to end, through its public API, a
// file for each subject. What takes long is in packages below it, which run
// beside it.
package e2e
