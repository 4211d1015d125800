package rest

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/server"
	"github.com/dlsms/dlsms/server/edge"
)

// A page keeps its token in memory, and scripts can read no other place. If the user wants to stay
// signed in, the token is also in a cookie, which scripts can't read:
//
//	POST /v1/auth/session          stores the token of the request in the cookie
//	POST /v1/auth/session:resume   returns the token in the cookie
//	POST /v1/auth/session:end      deletes the cookie
//
// No other path reads the cookie, and these accept only requests of pages of this server. So a page
// of another origin can't act as the user, although the browser sends the cookie by itself.
const (
	sessionPath = "/v1/auth/session"
	resumePath  = sessionPath + ":resume"
	endPath     = sessionPath + ":end"
)

const (
	// sessionCookie is the name of the cookie over HTTPS. Browsers accept the prefix __Host- only from
	// HTTPS, and only for this host and all of its paths.
	sessionCookie = "__Host-dlsms"
	// localCookie is the name of the cookie over HTTP on this machine, for a trial of the system.
	localCookie = "dlsms"
	// keyCookieAge is how long a browser keeps the cookie of a service key, which does not expire:
	// the longest time that browsers accept. Each resumption starts it again.
	keyCookieAge = 400 * 24 * time.Hour
)

// sessionHandlers returns the handlers of the three paths.
func (h *Handler) sessionHandlers() map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{
		sessionPath: ofThisServer(h.serveSession), resumePath: ofThisServer(h.serveResume), endPath: ofThisServer(serveEnd),
	}
}

// ofThisServer returns a handler that calls serve for a POST of a page of this server, with the
// cookie of its scheme. It refuses all other requests.
func ofThisServer(serve func(http.ResponseWriter, *http.Request, cookie)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			writeProblem(w, r, problem{Status: http.StatusMethodNotAllowed, Detail: "this path accepts POST"})
			return
		}
		scheme, ok := ownOrigin(r)
		switch {
		case !ok:
			writeProblem(w, r, problem{
				Status: http.StatusForbidden, Detail: "the header Origin must be the origin of this server",
			})
		case scheme == "https":
			serve(w, r, cookie{name: sessionCookie, secure: true})
		case isThisMachine(r.Host):
			serve(w, r, cookie{name: localCookie})
		default:
			writeProblem(w, r, problem{Status: http.StatusBadRequest, Detail: "staying signed in requires HTTPS"})
		}
	}
}

// ownOrigin returns the scheme of the Origin of a request. ok is false if the request has no Origin,
// or that of another server. A proxy may use another scheme than its client, so both are right here.
func ownOrigin(r *http.Request) (scheme string, ok bool) {
	values := r.Header["Origin"]
	if len(values) != 1 {
		return "", false
	}
	scheme, host, _ := strings.Cut(values[0], "://")
	var port string // the one that a browser leaves out
	switch scheme {
	case "https":
		port = ":443"
	case "http":
		port = ":80"
	default:
		return "", false
	}
	return scheme, host != "" && strings.EqualFold(strings.TrimSuffix(host, port), strings.TrimSuffix(r.Host, port))
}

// isThisMachine reports whether the host of a request names the machine of the browser itself.
func isThisMachine(host string) bool {
	if port := strings.LastIndexByte(host, ':'); port > strings.LastIndexByte(host, ']') {
		host = host[:port]
	}
	switch strings.ToLower(host) {
	case "localhost", "127.0.0.1", "[::1]":
		return true
	}
	return false
}

// cookie is the cookie of a session.
type cookie struct {
	name   string
	secure bool
}

// set stores a token. age below 1 s deletes the cookie.
func (c cookie) set(w http.ResponseWriter, token string, age time.Duration) {
	seconds := int(age / time.Second)
	if seconds == 0 {
		seconds = -1 // http.Cookie has 0 for no age
	}
	http.SetCookie(w, &http.Cookie{ //nolint:gosec // Secure is false only on this machine without TLS
		Name: c.name, Value: token, Path: "/", MaxAge: seconds, HttpOnly: true, Secure: c.secure,
		SameSite: http.SameSiteStrictMode,
	})
}

func (h *Handler) serveSession(w http.ResponseWriter, r *http.Request, c cookie) {
	session, err := h.verifySession(r.Context(), edge.Bearer)
	if err != nil {
		writeProblem(w, r, problemOf(err))
		return
	}
	c.set(w, session.Token, cookieAge(session))
	writeSession(w, session)
}

func (h *Handler) serveResume(w http.ResponseWriter, r *http.Request, c cookie) {
	found := r.CookiesNamed(c.name)
	session, err := h.verifySession(r.Context(), func(context.Context) (string, error) {
		switch len(found) {
		case 0:
			return "", library.ErrTokenMissing.WithMessage("the request has no cookie of a session; log in again")
		case 1:
			return found[0].Value, nil
		}
		return "", library.ErrTokenInvalid
	})
	if err != nil {
		p := problemOf(err)
		refused := p.Status == http.StatusUnauthorized || p.Status == http.StatusForbidden
		if refused && len(found) > 0 { // while Postgres does not answer, the cookie stays
			c.set(w, "", 0)
		}
		writeProblem(w, r, p)
		return
	}
	if session.Key {
		c.set(w, session.Token, cookieAge(session))
	}
	writeSession(w, session)
}

func serveEnd(w http.ResponseWriter, _ *http.Request, c cookie) {
	c.set(w, "", 0)
	w.Header()["Cache-Control"] = noStore
	w.WriteHeader(http.StatusNoContent)
}

// verifySession returns the session of a token, which tokenOf finds in the context of the call. It
// is a call of VerifyToken, with the same limits and the same line in the log.
func (h *Handler) verifySession(
	ctx context.Context, tokenOf func(context.Context) (string, error),
) (server.Session, error) {
	const method = dlsmsv1.AuthService_VerifyToken_FullMethodName
	session, err := h.caller.Call(ctx, method, nil, func(ctx context.Context, _ any) (any, error) {
		token, err := tokenOf(ctx)
		if err != nil {
			return nil, err
		}
		return h.session(ctx, token)
	})
	if err != nil {
		return server.Session{}, err
	}
	return session.(server.Session), nil
}

// cookieAge returns how long a browser keeps the cookie of a session.
func cookieAge(s server.Session) time.Duration {
	if s.Key {
		return keyCookieAge
	}
	return s.Remaining
}

// sessionAnswer is a session in JSON. tools/openapi has its schema.
type sessionAnswer struct {
	AccessToken string `json:"accessToken"`
	Key         bool   `json:"key,omitempty"`
	ExpiresAt   string `json:"expiresAt,omitempty"`
	UserID      string `json:"userId,omitempty"` // as protobuf writes an int64
	StudentID   string `json:"studentId,omitempty"`
	Role        string `json:"role,omitempty"`
}

func writeSession(w http.ResponseWriter, s server.Session) {
	answer := sessionAnswer{AccessToken: s.Token, Key: s.Key}
	if !s.Key {
		answer.ExpiresAt = s.ExpiresAt.UTC().Format(time.RFC3339)
		answer.UserID, answer.StudentID = strconv.FormatInt(s.UserID, 10), s.StudentID
		answer.Role = s.Role.String()
	}
	text, err := json.Marshal(answer) //nolint:gosec // the token is the purpose of the answer
	if err != nil {                   // impossible: the fields are texts
		panic(err)
	}
	header := w.Header()
	header["Content-Type"] = contentJSON
	header["Cache-Control"] = noStore
	header["Content-Length"] = []string{strconv.Itoa(len(text))}
	_, _ = w.Write(text) // a client that disconnected needs no answer
}
