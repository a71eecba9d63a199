package mesh

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
)

// outside is a client that trusts the door's certificate.
func (l *lab) outside(protocols ...string) *tls.Config {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(l.authority.root)
	return &tls.Config{RootCAs: roots, ServerName: host, NextProtos: protocols}
}

func (l *lab) http(method, path string, headers map[string]string, body []byte) (*http.Response, []byte) {
	l.t.Helper()
	request, err := http.NewRequestWithContext(context.Background(), method, "https://"+l.door+path, bytes.NewReader(body))
	if err != nil {
		l.t.Fatal(err)
	}
	request.Host = host
	for key, value := range headers {
		request.Header.Set(key, value)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: l.outside(), DisableKeepAlives: true}, Timeout: 20 * time.Second}
	response, err := client.Do(request)
	if err != nil {
		return &http.Response{}, []byte(err.Error())
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	return response, text
}

func (l *lab) rest(method, path, token, body string) (int, string) {
	l.t.Helper()
	headers := map[string]string{"content-type": "application/json"}
	if token != "" {
		headers["authorization"] = "Bearer " + token
	}
	response, text := l.http(method, path, headers, []byte(body))
	return response.StatusCode, string(text)
}

// plain opens a port without TLS that leads to the door: the tools of the binary speak none.
func (l *lab) plain() string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			inner, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer inner.Close()
				outer, err := tls.Dial("tcp", l.door, l.outside("h2"))
				if err != nil {
					return
				}
				defer outer.Close()
				go func() { _, _ = io.Copy(outer, inner); _ = outer.CloseWrite() }()
				_, _ = io.Copy(inner, outer)
			}()
		}
	}()
	return listener.Addr().String()
}

// run runs a tool of the binary through the gateway, which speaks TLS where the tools speak none.
func (l *lab) run(arguments ...string) (string, error) {
	out, err := exec.Command(l.checkup, append(arguments, "--addr", l.plain(), "--data-dir", l.credential)...).CombinedOutput()
	return string(out), err
}

// refused says whether a call was answered with this code and, where one is named, this reason in its ErrorInfo.
func refused(t *testing.T, err error, code codes.Code, reason string) bool {
	t.Helper()
	got, named := status.Convert(err), reasonOf(err)
	if got.Code() != code || named != reason {
		t.Errorf("%s %q (%s) instead of %s %q", got.Code(), named, got.Message(), code, reason)
		return false
	}
	return true
}

// reasonOf is what a refusal of the contract's names; the mesh's own have none.
func reasonOf(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.Reason
		}
	}
	return ""
}

// inside is a client with an identity of the mesh.
func (l *lab) inside(identity string) *tls.Config { return newLabTLS(l.t, l.authority, identity) }

func newLabTLS(t *testing.T, authority *authority, identity string) *tls.Config {
	t.Helper()
	chain, key, err := authority.issue(identity)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		t.Fatal(err)
	}
	// Whom it reaches is not in question here.
	return &tls.Config{Certificates: []tls.Certificate{pair}, InsecureSkipVerify: true, NextProtos: []string{"h2"}}
}

// client calls methods of the contract over one connection.
type client struct {
	contract   *Contract
	connection *grpc.ClientConn
}

// connect makes a client for an address; nil is no TLS.
func (l *lab) connect(address string, config *tls.Config) *client {
	l.t.Helper()
	secure := insecure.NewCredentials()
	if config != nil {
		secure = credentials.NewTLS(config)
	}
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(secure), grpc.WithAuthority(host), grpc.WithDisableServiceConfig())
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { connection.Close() })
	return &client{l.contract, connection}
}

// method finds one by its name without the package's beginning: screening.v1.ScreeningService/CreateScreening.
func (c *client) method(name string) (path string, method protoreflect.MethodDescriptor, err error) {
	service, rest, _ := strings.Cut("checkup."+name, "/")
	found, err := c.contract.files.FindDescriptorByName(protoreflect.FullName(service + "." + rest))
	if err != nil {
		return "", nil, err
	}
	return "/" + service + "/" + rest, found.(protoreflect.MethodDescriptor), nil
}

// call sends a request that is written in JSON.
func (c *client) call(ctx context.Context, name, token, body string) (*dynamicpb.Message, error) {
	path, method, err := c.method(name)
	if err != nil {
		return nil, err
	}
	request, answer := dynamicpb.NewMessage(method.Input()), dynamicpb.NewMessage(method.Output())
	if err := protojson.Unmarshal([]byte(body), request); err != nil {
		return nil, err
	}
	if token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	return answer, c.connection.Invoke(ctx, path, request, answer)
}

// textOf reads a string, or the name of an enum's value, of a message.
func textOf(message *dynamicpb.Message, field string) string {
	descriptor := message.Descriptor().Fields().ByName(protoreflect.Name(field))
	if descriptor.Kind() == protoreflect.EnumKind {
		return string(descriptor.Enum().Values().ByNumber(message.Get(descriptor).Enum()).Name())
	}
	return message.Get(descriptor).String()
}

// dial returns how to call a method there, with JSON on both sides.
func (l *lab) dial(address string, config *tls.Config) func(method, token, body string) (string, error) {
	client := l.connect(address, config)
	return func(method, token, body string) (string, error) {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		answer, err := client.call(ctx, method, token, body)
		if err != nil {
			return "", err
		}
		text, err := json.Marshal(json.RawMessage(protojson.Format(answer)))
		return string(text), err
	}
}

// message encodes a message written in JSON.
func (l *lab) message(name, body string) []byte {
	l.t.Helper()
	found, err := l.contract.files.FindDescriptorByName(protoreflect.FullName(name))
	if err != nil {
		l.t.Fatal(err)
	}
	message := dynamicpb.NewMessage(found.(protoreflect.MessageDescriptor))
	if err := protojson.Unmarshal([]byte(body), message); err != nil {
		l.t.Fatal(err)
	}
	encoded, err := proto.Marshal(message)
	if err != nil {
		l.t.Fatal(err)
	}
	return encoded
}
