package main

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc"

	"github.com/dlsms/dlsms/e2e"
)

// crowd adds n users, each with a token, and returns their clients, which share conns connections.
// It signs the tokens itself, because so many logins would take too long.
func (s *system) crowd(ctx context.Context, name string, n, conns int) ([]*e2e.Client, error) {
	rows, err := s.db.Query(ctx, `
		INSERT INTO users (library_id, student_id, name, email, role, password_hash, token_generation)
		SELECT 1, $1 || i, 'Student ' || i, $1 || i || '@university.example', 'STUDENT', '', 0
		FROM generate_series(0, $2 - 1) i
		RETURNING id, student_id`, name, n)
	if err != nil {
		return nil, fmt.Errorf("add users: %w", err)
	}
	var connections []grpc.ClientConnInterface
	for range conns {
		conn, err := s.dial(s.Addr()) // without retries, so that the caller gets each refusal
		if err != nil {
			return nil, err
		}
		connections = append(connections, conn)
	}
	var crowd []*e2e.Client
	var id int64
	var studentID string
	_, err = pgx.ForEachRow(rows, []any{&id, &studentID}, func() error {
		token, err := e2e.SignToken(keyID, s.secret, id, studentID)
		crowd = append(crowd, e2e.Anonymous(connections[len(crowd)%len(connections)]).WithToken(token))
		return err
	})
	return crowd, err
}
