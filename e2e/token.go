package e2e

import (
	"strconv"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Sign returns a token for a student as Login makes it, good for a day: for tests with so many users that to log them all in would take an
// hour of bcrypt. kid and secret are of the JWT_SECRET of the replicas; the user's token_generation must be 0.
func SignToken(kid, secret string, userID int64, studentID string) (string, error) {
	now := time.Now()
	token := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"user_id": userID, "student_id": studentID, "role": "STUDENT", "gen": 0, "jti": studentID + "-" + strconv.FormatInt(now.UnixNano(), 36),
		"iat": now.Unix(), "exp": now.Add(24 * time.Hour).Unix(),
	})
	token.Header["kid"] = kid
	return token.SignedString([]byte(secret))
}
