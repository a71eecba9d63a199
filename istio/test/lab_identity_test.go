package mesh

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	transport "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secret "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// authority is the mesh's own certificate authority.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	root        []byte
}

func newAuthority(t *testing.T) *authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "lab"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{certificate, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// issue makes a certificate for an identity, or for a host's name.
func (a *authority) issue(name string) (chain, private []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if strings.HasPrefix(name, "spiffe://") {
		identity, _ := url.Parse(name)
		template.URIs = []*url.URL{identity}
	} else {
		template.DNSNames, template.IPAddresses = []string{name}, []net.IP{net.IPv4(127, 0, 0, 1)}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		return nil, nil, err
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}), err
}

// secrets stands for the agent beside an Envoy: it gives it its certificate and the root.
type secrets struct {
	secret.UnimplementedSecretDiscoveryServiceServer
	own  *transport.Secret
	host *transport.Secret
	root *transport.Secret
}

func inline(text []byte) *core.DataSource {
	return &core.DataSource{Specifier: &core.DataSource_InlineBytes{InlineBytes: text}}
}

func certificate(chain, key []byte) *transport.Secret {
	return &transport.Secret{Type: &transport.Secret_TlsCertificate{TlsCertificate: &transport.TlsCertificate{
		CertificateChain: inline(chain), PrivateKey: inline(key)}}}
}

func (s *secrets) StreamSecrets(stream secret.SecretDiscoveryService_StreamSecretsServer) error {
	for {
		request, err := stream.Recv()
		if err != nil {
			return err
		}
		if request.ResponseNonce != "" { // an acknowledgement; secrets do not change here
			continue
		}
		response := &discovery.DiscoveryResponse{VersionInfo: "1", Nonce: "1", TypeUrl: request.TypeUrl}
		for _, name := range request.ResourceNames {
			wanted := s.own
			switch {
			case name == "ROOTCA":
				wanted = s.root
			case strings.HasPrefix(name, "file-cert:"):
				wanted = s.host
			}
			one := proto.Clone(wanted).(*transport.Secret)
			one.Name = name
			packed, err := anypb.New(one)
			if err != nil {
				return err
			}
			response.Resources = append(response.Resources, packed)
		}
		if err := stream.Send(response); err != nil {
			return err
		}
	}
}

// serveSecrets returns the port of a server for one identity.
func (l *lab) serveSecrets(account, namespace string) (int, error) {
	own, ownKey, err := l.authority.issue(fmt.Sprintf("spiffe://cluster.local/ns/%s/sa/%s", namespace, account))
	if err != nil {
		return 0, err
	}
	door, doorKey, err := l.authority.issue(host)
	if err != nil {
		return 0, err
	}
	server := grpc.NewServer()
	secret.RegisterSecretDiscoveryServiceServer(server, &secrets{
		own:  certificate(own, ownKey),
		host: certificate(door, doorKey),
		root: &transport.Secret{Type: &transport.Secret_ValidationContext{ValidationContext: &transport.CertificateValidationContext{
			TrustedCa: inline(l.authority.root)}}},
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	go func() { _ = server.Serve(listener) }()
	l.t.Cleanup(server.Stop)
	return listener.Addr().(*net.TCPAddr).Port, nil
}

// makeKey has the binary make the key that tokens are signed with, and writes its public half where pods mount it.
func (l *lab) makeKey() {
	l.token("customer", "kim")
	text, err := os.ReadFile(filepath.Join(l.credential, "signing-key.pem"))
	if err != nil {
		l.t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		l.t.Fatal(err)
	}
	l.key = key.(ed25519.PrivateKey)
	if err := os.WriteFile(filepath.Join(l.dir, "jwks.json"), []byte(l.jwks()), 0o644); err != nil {
		l.t.Fatal(err)
	}
}

// jwks is the public half of the key, as README.md says to make it.
func (l *lab) jwks() string {
	out, err := exec.Command(l.checkup, "jwks", "--data-dir", l.credential).Output()
	if err != nil {
		l.t.Fatal(err)
	}
	return string(out)
}

// sign makes a token as `checkup token` does, for callers by the thousand.
func (l *lab) sign(role, subject string) string {
	made := map[string]any{"sub": subject, "role": role, "iss": "checkup", "aud": "checkup", "exp": time.Now().Add(time.Hour).Unix()}
	if role == "admin" {
		made["hospitals"] = "*"
	}
	claims, err := json.Marshal(made)
	if err != nil {
		panic(err) // strings and a number
	}
	text := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"EdDSA","typ":"JWT"}`)) + "." + base64.RawURLEncoding.EncodeToString(claims)
	return text + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(l.key, []byte(text)))
}
