package mesh

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
)

// Method is one of the contract's, as much of it as a mesh has to know.
type Method struct {
	// Path is what a proxy sees: /checkup.hospital.v1.HospitalService/GetHospital.
	Path string
	// Service is the process that serves it, see servedBy.
	Service string
	// Public methods are called from outside; they have a google.api.http.
	Public bool
	// Request is the name of its message; Verb and Body are what google.api.http says.
	Request, Verb, Body string
	// Reads have no effect; their HTTP verb is GET.
	Reads bool
	// Streams stay open for as long as their caller wants.
	Streams bool
}

const (
	reserve     = "/checkup.capacity.v1.CapacityService/ReserveCapacity"
	reserveAll  = "/checkup.capacity.v1.CapacityService/BatchReserveCapacity"
	release     = "/checkup.capacity.v1.CapacityService/ReleaseCapacity"
	getClaim    = "/checkup.capacity.v1.CapacityService/GetCapacityClaim"
	listClaims  = "/checkup.capacity.v1.CapacityService/ListCapacityClaims"
	getHospital = "/checkup.hospital.v1.HospitalService/GetHospital"
	getSlot     = "/checkup.hospital.v1.HospitalService/GetSlot"
	askForMore  = "/checkup.hospital.v1.HospitalService/CreateCapacityRequest"
	book        = "/checkup.screening.v1.ScreeningService/CreateScreening"
	move        = "/checkup.screening.v1.ScreeningService/RescheduleScreening"
)

// The methods of reflection, which are in every process and in no contract.
var reflection = []string{
	"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
	"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
}

// Reads that have no HTTP verb to tell it by.
var internalReads = map[string]bool{getClaim: true, listClaims: true}

// Repeatable says whether a second call has no second effect. Claims are taken and given back once for each claim_id.
// Public writes are repeatable with a request_id, which nobody is made to send, so they are not.
func (m Method) Repeatable() bool {
	return (m.Reads && !m.Streams) || m.Path == reserve || m.Path == reserveAll || m.Path == release
}

// Contract is what the transcoder was given, which .ci/generated keeps as new as proto/.
type Contract struct {
	Methods  []Method
	services []string
	messages map[string]bool
	files    *protoregistry.Files
}

func readContract(descriptors string) (*Contract, error) {
	raw, err := base64.StdEncoding.DecodeString(descriptors)
	if err != nil {
		return nil, err
	}
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(raw, set); err != nil {
		return nil, err
	}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		return nil, err
	}
	contract := &Contract{messages: map[string]bool{}, files: files}
	files.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		for i := range file.Messages().Len() {
			contract.messages[string(file.Messages().Get(i).FullName())] = true
		}
		for i := range file.Services().Len() {
			contract.add(file.Services().Get(i))
		}
		return true
	})
	if len(contract.Methods) == 0 {
		return nil, errors.New("the descriptors hold no method")
	}
	return contract, nil
}

// servedBy is the process that serves a package. One package is not named like its service.
func servedBy(pkg string) string {
	if pkg == "capacity" {
		return "hospital"
	}
	return pkg
}

func (c *Contract) add(service protoreflect.ServiceDescriptor) {
	public := false
	for i := range service.Methods().Len() {
		method := service.Methods().Get(i)
		path := fmt.Sprintf("/%s/%s", service.FullName(), method.Name())
		rule, _ := proto.GetExtension(method.Options(), annotations.E_Http).(*annotations.HttpRule)
		public = public || rule != nil
		verb := ""
		for name, at := range map[string]string{"GET": rule.GetGet(), "POST": rule.GetPost(), "PATCH": rule.GetPatch(), "PUT": rule.GetPut(), "DELETE": rule.GetDelete()} {
			if at != "" {
				verb = name
			}
		}
		c.Methods = append(c.Methods, Method{
			Path:    path,
			Service: servedBy(strings.Split(string(service.FullName()), ".")[1]),
			Public:  rule != nil,
			Request: string(method.Input().FullName()), Verb: verb, Body: rule.GetBody(),
			Reads:   rule.GetGet() != "" || internalReads[path],
			Streams: method.IsStreamingServer() || method.IsStreamingClient(),
		})
	}
	if public {
		c.services = append(c.services, string(service.FullName()))
	}
}

// knows says whether a path leads to a method.
func (c *Contract) knows(path string) bool {
	for _, method := range c.Methods {
		if method.Path == path {
			return true
		}
	}
	for _, known := range reflection {
		if known == path {
			return true
		}
	}
	return false
}
