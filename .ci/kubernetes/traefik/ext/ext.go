// Package ext: nothing more.
package ext

// HTTP has no more fields.
type HTTP struct{}

// Router has no more fields.
type Router struct{}
