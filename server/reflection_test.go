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

// TestReflectionHasComments: grpcurl describes each service and RPC with its comment, and as the generated code has it.
func TestReflectionHasComments(t *testing.T) {
	t.Parallel()
	s := grpc.NewServer()
	if err := reflect(s); err != nil {
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
	// ask returns the file that defines a symbol.
	ask := func(symbol string) *descriptorpb.FileDescriptorProto {
		t.Helper()
		request := &reflectionv1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: symbol}
		if err := stream.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: request}); err != nil {
			t.Fatal(err)
		}
		answer, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		files := answer.GetFileDescriptorResponse().GetFileDescriptorProto()
		if len(files) == 0 {
			t.Fatalf("%s: %v", symbol, answer)
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
		told := ask(string(service.FullName()))
		file, err := protodesc.NewFile(told, commentedFiles(t))
		if err != nil {
			t.Fatal(err)
		}
		described := file.Services().Get(0)
		if c := file.SourceLocations().ByDescriptor(described).LeadingComments; !strings.Contains(c, string(service.Name())) {
			t.Errorf("the comment of %s is %q", service.Name(), c)
		}
		for i := range described.Methods().Len() {
			rpc := described.Methods().Get(i)
			if c := file.SourceLocations().ByDescriptor(rpc).LeadingComments; !strings.Contains(c, string(rpc.Name())) {
				t.Errorf("the comment of %s is %q", rpc.FullName(), c)
			}
		}
		told.SourceCodeInfo = nil
		if !proto.Equal(told, protodesc.ToFileDescriptorProto(generated)) {
			t.Errorf("%s is described otherwise than it was generated: make generate", generated.Path())
		}
	}
	if file := ask("grpc.reflection.v1.ServerReflection"); file.GetPackage() != "grpc.reflection.v1" {
		t.Errorf("reflection itself is described by %v", file)
	}
}

func commentedFiles(t *testing.T) protodesc.Resolver {
	t.Helper()
	files, err := describedFiles()
	if err != nil {
		t.Fatal(err)
	}
	return commented{files}
}
