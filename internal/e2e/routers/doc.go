// Package routers mounts a server in routers that others wrote, behind the
// middleware that they are used with. It is a module of its own, so that nobody who
// uses typedrpc depends on any of them. docs/deploy.md has the lines that mount.
package routers
