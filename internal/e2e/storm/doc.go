// Package storm tests what many do at once.
package storm
