package e2e

import (
	"strconv"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// SignToken returns a student's token like that of Login, valid for a day. It serves tests with so
// many users that their logins would take an hour of bcrypt. kid and secret are those of the
// replicas' JWT_SECRET. The user's token_generation must be 0.
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
