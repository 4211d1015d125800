package server

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/server/edge"
)

// Page sizes of ListAudit.
const (
	defaultAudit = 100
	maxAudit     = 500
)

func (s *adminService) ListAudit(
	ctx context.Context, req *dlsmsv1.ListAuditRequest,
) (*dlsmsv1.ListAuditResponse, error) {
	var c check
	query := library.AuditQuery{
		Branch: c.text("branch", req.GetBranch(), 0, 32),
		Object: c.text("object", req.GetObject(), 0, 200),
		Action: c.text("action", req.GetAction(), 0, 100),
	}
	size, after := c.page(req, defaultAudit, maxAudit)
	if err := c.err(); err != nil {
		return nil, err
	}

	entries, err := s.store.Audit(ctx, edge.Caller(ctx).Actor(), query, after.ID, size+1)
	if err != nil {
		return nil, err
	}

	resp := &dlsmsv1.ListAuditResponse{}
	entries, resp.NextPageToken = cut(req, entries, size, func(e library.AuditEntry) cursor { return cursor{ID: e.ID} })
	for _, e := range entries {
		resp.Entries = append(resp.Entries, auditProto(e))
	}
	return resp, nil
}

func auditProto(e library.AuditEntry) *dlsmsv1.AuditEntry {
	return &dlsmsv1.AuditEntry{
		Id: e.ID, At: timestamppb.New(e.At), UserId: e.UserID, StudentId: e.StudentID, Role: string(e.Role),
		Action: e.Action, Branch: e.Branch, Object: e.Object, Before: e.Before, After: e.After,
		Reason: e.Reason, RequestId: e.RequestID,
	}
}
