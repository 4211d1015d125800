package server

import (
	_ "embed"
	"fmt"

	"google.golang.org/grpc/reflection"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
)

// protos are the descriptors of the files in proto/ with their comments, which the generated code
// does not contain. `make generate` writes the file.
//
//go:embed protos.binpb
var protos []byte

// commentedResolver resolves the descriptors of proto/ with their comments. It resolves all others,
// such as those of the health service, from the global registry, without comments.
type commentedResolver struct{ *protoregistry.Files }

// FindFileByPath implements protodesc.Resolver.
func (r commentedResolver) FindFileByPath(path string) (protoreflect.FileDescriptor, error) {
	if file, err := r.Files.FindFileByPath(path); err == nil {
		return file, nil
	}
	return protoregistry.GlobalFiles.FindFileByPath(path)
}

// FindDescriptorByName implements protodesc.Resolver.
func (r commentedResolver) FindDescriptorByName(name protoreflect.FullName) (protoreflect.Descriptor, error) {
	if d, err := r.Files.FindDescriptorByName(name); err == nil {
		return d, nil
	}
	return protoregistry.GlobalFiles.FindDescriptorByName(name)
}

func loadCommentedFiles() (*protoregistry.Files, error) {
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(protos, &set); err != nil {
		return nil, fmt.Errorf("parse protos.binpb: %w", err)
	}
	files, err := protodesc.NewFiles(&set)
	if err != nil {
		return nil, fmt.Errorf("parse protos.binpb: %w", err)
	}
	return files, nil
}

// registerReflection registers gRPC reflection. It serves descriptors with comments, so that
// `grpcurl describe` shows the rules and errors of each call.
func registerReflection(s reflection.GRPCServer) error {
	files, err := loadCommentedFiles()
	if err != nil {
		return err
	}
	options := reflection.ServerOptions{Services: s, DescriptorResolver: commentedResolver{files}}
	reflectionv1.RegisterServerReflectionServer(s, reflection.NewServerV1(options))
	reflectionv1alpha.RegisterServerReflectionServer(s, reflection.NewServer(options))
	return nil
}
