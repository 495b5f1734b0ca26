package auth

import "net/http"

// CheckSecret refuses always: Traefik's fork of this module has it, and the test cluster asks nobody for a password.
func CheckSecret(password, secret string) bool { return false }

// RequireAuthStale asks anew.
func (a *DigestAuth) RequireAuthStale(w http.ResponseWriter, r *http.Request) { a.RequireAuth(w, r) }
