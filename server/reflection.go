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

// protos are the descriptors of proto/ with their comments, which the generated code leaves out. `make generate` makes them.
//
//go:embed protos.binpb
var protos []byte

// commented finds the descriptors of proto/ with their comments, and all others, such as those of health checks, without.
type commented struct{ *protoregistry.Files }

// FindFileByPath implements protodesc.Resolver.
func (c commented) FindFileByPath(path string) (protoreflect.FileDescriptor, error) {
	if file, err := c.Files.FindFileByPath(path); err == nil {
		return file, nil
	}
	return protoregistry.GlobalFiles.FindFileByPath(path)
}

// FindDescriptorByName implements protodesc.Resolver.
func (c commented) FindDescriptorByName(name protoreflect.FullName) (protoreflect.Descriptor, error) {
	if d, err := c.Files.FindDescriptorByName(name); err == nil {
		return d, nil
	}
	return protoregistry.GlobalFiles.FindDescriptorByName(name)
}

func describedFiles() (*protoregistry.Files, error) {
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(protos, &set); err != nil {
		return nil, fmt.Errorf("read the descriptors of the protos: %w", err)
	}
	files, err := protodesc.NewFiles(&set)
	if err != nil {
		return nil, fmt.Errorf("read the descriptors of the protos: %w", err)
	}
	return files, nil
}

// reflect registers gRPC reflection, so that `grpcurl describe` shows the rules and errors of each call.
func reflect(s reflection.GRPCServer) error {
	files, err := describedFiles()
	if err != nil {
		return err
	}
	options := reflection.ServerOptions{Services: s, DescriptorResolver: commented{files}}
	reflectionv1.RegisterServerReflectionServer(s, reflection.NewServerV1(options))
	reflectionv1alpha.RegisterServerReflectionServer(s, reflection.NewServer(options))
	return nil
}
