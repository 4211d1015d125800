package e2e

import (
	"strconv"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// SignToken returns a token for a student, valid for a day, like a token that Login returns. Tests
// with thousands of users sign tokens, because that many logins would take an hour of bcrypt. kid
// and secret are the two parts of the replicas' setting JWT_SECRET. The column token_generation of
// the user must be 0.
func SignToken(kid, secret string, userID int64, studentID string) (string, error) {
	now := time.Now()
	token := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"user_id":    userID,
		"student_id": studentID,
		"role":       "STUDENT",
		"gen":        0,
		"jti":        studentID + "-" + strconv.FormatInt(now.UnixNano(), 36),
		"iat":        now.Unix(),
		"exp":        now.Add(24 * time.Hour).Unix(),
	})
	token.Header["kid"] = kid
	return token.SignedString([]byte(secret))
}
