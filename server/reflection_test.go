package server

import (
	"context"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// TestReflectionServesComments tests that reflection describes each service and RPC with its
// comment, and otherwise exactly as the generated code does.
func TestReflectionServesComments(t *testing.T) {
	t.Parallel()
	s := grpc.NewServer()
	if err := registerReflection(s); err != nil {
		t.Fatal(err)
	}
	l := bufconn.Listen(1 << 20)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	conn, err := grpc.NewClient("passthrough:///test", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	stream, err := reflectionv1.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// fileOf returns the file that defines a symbol.
	fileOf := func(symbol string) *descriptorpb.FileDescriptorProto {
		t.Helper()
		request := &reflectionv1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: symbol}
		if err := stream.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: request}); err != nil {
			t.Fatal(err)
		}
		resp, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		files := resp.GetFileDescriptorResponse().GetFileDescriptorProto()
		if len(files) == 0 {
			t.Fatalf("%s: %v", symbol, resp)
		}
		file := &descriptorpb.FileDescriptorProto{}
		if err := proto.Unmarshal(files[0], file); err != nil {
			t.Fatal(err)
		}
		return file
	}
	for _, generated := range []protoreflect.FileDescriptor{
		dlsmsv1.File_dlsms_v1_auth_proto, dlsmsv1.File_dlsms_v1_seat_proto, dlsmsv1.File_dlsms_v1_reservation_proto,
		dlsmsv1.File_dlsms_v1_notify_proto,
	} {
		service := generated.Services().Get(0)
		served := fileOf(string(service.FullName()))
		file, err := protodesc.NewFile(served, commentedFiles(t))
		if err != nil {
			t.Fatal(err)
		}
		commented := file.Services().Get(0)
		locations := file.SourceLocations()
		if c := locations.ByDescriptor(commented).LeadingComments; !strings.Contains(c, string(service.Name())) {
			t.Errorf("the comment of %s is %q", service.Name(), c)
		}
		for i := range commented.Methods().Len() {
			rpc := commented.Methods().Get(i)
			if c := locations.ByDescriptor(rpc).LeadingComments; !strings.Contains(c, string(rpc.Name())) {
				t.Errorf("the comment of %s is %q", rpc.FullName(), c)
			}
		}
		served.SourceCodeInfo = nil
		if !proto.Equal(served, protodesc.ToFileDescriptorProto(generated)) {
			t.Errorf("%s: reflection differs from the generated code: run make generate", generated.Path())
		}
	}
	if file := fileOf("grpc.reflection.v1.ServerReflection"); file.GetPackage() != "grpc.reflection.v1" {
		t.Errorf("reflection describes itself with %v", file)
	}
}

func commentedFiles(t *testing.T) protodesc.Resolver {
	t.Helper()
	files, err := loadCommentedFiles()
	if err != nil {
		t.Fatal(err)
	}
	return commentedResolver{files}
}
