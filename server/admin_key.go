package server

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/server/edge"
	"github.com/dlsms/dlsms/server/identity"
)

func (s *adminService) CreateKey(
	ctx context.Context, req *dlsmsv1.CreateKeyRequest,
) (*dlsmsv1.CreateKeyResponse, error) {
	var c check
	order := c.order(ctx, "CreateKey", req)
	key := library.ServiceKey{
		Name:   c.name("name", req.GetName()),
		Branch: c.text("branch", req.GetBranch(), 1, 32),
		Scopes: c.keyScopes("scopes", req.GetScopes()),
	}
	if err := c.err(); err != nil {
		return nil, err
	}

	secret, hash := identity.NewKeySecret()
	key, err := s.store.CreateKey(ctx, order, key, hash)
	if err != nil {
		return nil, err
	}

	resp := &dlsmsv1.CreateKeyResponse{Key: keyProto(key)}
	if !order.ValidateOnly {
		resp.Secret = identity.KeyText(key.ID, secret)
	}
	return resp, nil
}

func (s *adminService) RevokeKey(
	ctx context.Context, req *dlsmsv1.RevokeKeyRequest,
) (*dlsmsv1.RevokeKeyResponse, error) {
	var c check
	order := c.order(ctx, "RevokeKey", req)
	id := c.id("key_id", req.GetKeyId())
	if err := c.err(); err != nil {
		return nil, err
	}

	key, err := s.store.RevokeKey(ctx, order, id)
	if err != nil {
		return nil, err
	}

	return &dlsmsv1.RevokeKeyResponse{Key: keyProto(key)}, nil
}

func (s *adminService) ListKeys(ctx context.Context, _ *dlsmsv1.ListKeysRequest) (*dlsmsv1.ListKeysResponse, error) {
	keys, err := s.store.Keys(ctx, edge.Caller(ctx).Actor())
	if err != nil {
		return nil, err
	}

	resp := &dlsmsv1.ListKeysResponse{}
	for _, k := range keys {
		resp.Keys = append(resp.Keys, keyProto(k))
	}
	return resp, nil
}

// keyScopes checks the scopes of a key. It returns each scope once.
func (c *check) keyScopes(field string, v []dlsmsv1.KeyScope) (scopes []library.KeyScope) {
	if len(v) == 0 || len(v) > len(dlsmsv1.KeyScope_name) {
		c.fault(field, "must be 1 to 3 scopes")
		return nil
	}
	seen := map[dlsmsv1.KeyScope]bool{}
	for i, s := range v {
		if s == dlsmsv1.KeyScope_KEY_SCOPE_UNSPECIFIED || !isDefined(s) {
			c.fault(fmt.Sprintf("%s[%d]", field, i), "is not a known scope")
		}
		if !seen[s] {
			seen[s] = true
			scopes = append(scopes, library.KeyScope(strings.ToLower(strings.TrimPrefix(s.String(), "KEY_SCOPE_"))))
		}
	}
	return scopes
}

func keyProto(k library.ServiceKey) *dlsmsv1.ServiceKey {
	p := &dlsmsv1.ServiceKey{
		Id: k.ID, Name: k.Name, Branch: k.Branch,
		CreatedAt: timestamppb.New(k.CreatedAt), RevokedAt: timestamp(k.RevokedAt),
	}
	for _, s := range k.Scopes {
		name := "KEY_SCOPE_" + strings.ToUpper(string(s))
		p.Scopes = append(p.Scopes, enumValue[dlsmsv1.KeyScope](name, dlsmsv1.KeyScope_value))
	}
	return p
}
