package mesh

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	transport "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secret "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
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
	"google.golang.org/protobuf/types/known/anypb"
	meshconfig "istio.io/api/mesh/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"istio.io/istio/pilot/pkg/features"
	"istio.io/istio/pilot/test/xds"
)

// The loopback mesh: Istio's control plane in this process, an Envoy beside every process of checkup and one at the door, mutual TLS
// with identities made here, the shipped manifests. What differs from a cluster is said where it is done.

// Where things are. Every pod, every caller's way to Hospital and every Envoy's admin page has a loopback address of its own, since a
// sidecar has the Service's port. Ports lie below those that the system hands out, or somebody would have one before it is bound.
func address(kind, index int) string {
	return fmt.Sprintf("127.%d.%d.%d", 64+os.Getpid()%128, kind, index+1)
}

func podIP(index int) string { return address(0, index) }

// A caller reaches Hospital through its own sidecar, by the name in its /etc/hosts.
func wayIP(index int) string { return address(1, index) }

func fixedPort(index int) int { return 20_000 + os.Getpid()%1_000*10 + index }

type lab struct {
	t          *testing.T
	dir        string
	checkup    string
	envoy      string
	authority  *authority
	door       string // HOST:PORT of the gateway
	xds        string
	ports      map[string]int    // of the processes themselves
	sidecars   map[string]string // addresses of the Envoys' admin pages
	credential string
	account    string
	contract   *Contract
	processes  map[string]*exec.Cmd
}

func tool(t *testing.T, name string) string {
	path := os.Getenv(name)
	if path == "" {
		t.Skipf("%s names no program; .ci/istio-lab does", name)
	}
	return path
}

// start runs a program until the test ends; what it said is kept, and shown where the test failed.
func (l *lab) start(name string, command *exec.Cmd) {
	l.t.Helper()
	path := filepath.Join(l.dir, name+".log")
	out, err := os.Create(path)
	if err != nil {
		l.t.Fatal(err)
	}
	command.Stdout, command.Stderr = out, out
	// It dies with this process, however that ends.
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := command.Start(); err != nil {
		l.t.Fatal(err)
	}
	l.processes[name] = command
	l.t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
		out.Close()
		if text, _ := os.ReadFile(path); l.t.Failed() {
			l.t.Logf("the end of %s:\n%s", name, text[max(0, len(text)-3000):])
		}
	})
}

// eventually waits for something to hold, and says what did not.
func (l *lab) eventually(what string, holds func() error) {
	l.t.Helper()
	var err error
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if err = holds(); err == nil {
			return
		}
	}
	l.t.Fatalf("%s: %v", what, err)
}

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
func (a *authority) issue(t *testing.T, name string) (chain, private []byte) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if strings.HasPrefix(name, "spiffe://") {
		identity, _ := url.Parse(name)
		template.URIs = []*url.URL{identity}
	} else {
		template.DNSNames = []string{name}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
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

func (l *lab) serveSecrets(account, namespace string) int {
	own := certificate(l.authority.issue(l.t, fmt.Sprintf("spiffe://cluster.local/ns/%s/sa/%s", namespace, account)))
	server := grpc.NewServer()
	secret.RegisterSecretDiscoveryServiceServer(server, &secrets{
		own:  own,
		host: certificate(l.authority.issue(l.t, host)),
		root: &transport.Secret{Type: &transport.Secret_ValidationContext{ValidationContext: &transport.CertificateValidationContext{
			TrustedCa: inline(l.authority.root)}}},
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		l.t.Fatal(err)
	}
	go func() { _ = server.Serve(listener) }()
	l.t.Cleanup(server.Stop)
	return listener.Addr().(*net.TCPAddr).Port
}

// proxy starts an Envoy that is configured as Istio's agent would have it.
func (l *lab) proxy(name, kind, ip, namespace, account, label string) {
	l.t.Helper()
	labels := map[string]string{}
	for _, one := range strings.Split(label, ", ") {
		key, value, _ := strings.Cut(one, ": ")
		labels[key] = value
	}
	h2 := map[string]any{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": map[string]any{
		"@type":                "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
		"explicit_http_config": map[string]any{"http2_protocol_options": map[string]any{}},
	}}
	static := func(cluster, address string) map[string]any {
		to, port, _ := net.SplitHostPort(address)
		return map[string]any{
			"name": cluster, "type": "STATIC", "connect_timeout": "1s", "typed_extension_protocol_options": h2,
			"load_assignment": map[string]any{"cluster_name": cluster, "endpoints": []any{map[string]any{"lb_endpoints": []any{map[string]any{
				"endpoint": map[string]any{"address": map[string]any{"socket_address": map[string]any{"address": to, "port_value": json.Number(port)}}}}}}}},
		}
	}
	ads := map[string]any{"ads": map[string]any{}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"}
	l.sidecars[name] = address(2, len(l.sidecars))
	bootstrap := map[string]any{
		"node": map[string]any{
			"id": fmt.Sprintf("%s~%s~%s-0.%s~%s.svc.cluster.local", kind, ip, name, namespace, namespace), "cluster": name,
			"metadata": map[string]any{
				"ISTIO_VERSION": "1.31.0", "CLUSTER_ID": "Kubernetes", "NAMESPACE": namespace, "SERVICE_ACCOUNT": account,
				"LABELS": labels, "INSTANCE_IPS": ip, "INTERCEPTION_MODE": "NONE", "PROXY_CONFIG": map[string]any{},
			},
		},
		"dynamic_resources": map[string]any{
			"lds_config": ads, "cds_config": ads,
			"ads_config": map[string]any{
				"api_type": "GRPC", "transport_api_version": "V3", "set_node_on_first_message_only": true,
				"grpc_services": []any{map[string]any{"envoy_grpc": map[string]any{"cluster_name": "xds-grpc"}}},
			},
		},
		"static_resources": map[string]any{"clusters": []any{
			static("xds-grpc", l.xds), static("sds-grpc", fmt.Sprintf("127.0.0.1:%d", l.serveSecrets(account, namespace))),
		}},
		"admin": map[string]any{"address": map[string]any{"socket_address": map[string]any{"address": l.sidecars[name], "port_value": 9901}}},
	}
	text, err := json.Marshal(bootstrap)
	if err != nil {
		l.t.Fatal(err)
	}
	file := filepath.Join(l.dir, name+"-envoy.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		l.t.Fatal(err)
	}
	l.start(name+"-envoy", exec.Command(l.envoy, "-c", file, "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"))
}

// stats reads an Envoy's counters.
func (l *lab) stats(name, filter string) map[string]int {
	l.t.Helper()
	response, err := http.Get(fmt.Sprintf("http://%s:9901/stats?filter=%s", l.sidecars[name], url.QueryEscape(filter)))
	if err != nil {
		l.t.Fatal(err)
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	counters := map[string]int{}
	for line := range strings.Lines(string(text)) {
		var value int
		key, rest, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if _, err := fmt.Sscan(rest, &value); err == nil {
			counters[key] = value
		}
	}
	return counters
}

// onLoopback changes of the manifests what a cluster would have otherwise: no redirection of traffic (so listeners are named), keys made
// here, any host, no collector, no counters by Istio's own filters.
func (l *lab) onLoopback(manifests *Manifests) {
	jwks := l.jwks()
	// The second replica's sidecar has an address of its own. The older of two that select a pod counts.
	other := manifests.find("Sidecar", "hospital").DeepCopy()
	other.SetName(second)
	other.SetCreationTimestamp(metav1.Unix(1, 0))
	l.setIn(other, "second", "workloadSelector", "labels", "lab")
	manifests.Objects = append([]*unstructured.Unstructured{other}, manifests.Objects...)
	for _, object := range manifests.Objects {
		switch object.GetKind() {
		case "Sidecar":
			index := indexOf(object.GetName())
			if object.GetName() == second {
				index = len(services)
			}
			if index < 0 {
				continue
			}
			l.setIn(object, []any{map[string]any{
				"port": map[string]any{"number": int64(port), "protocol": "GRPC", "name": "grpc"}, "bind": podIP(index), "captureMode": "NONE",
				"defaultEndpoint": fmt.Sprintf("127.0.0.1:%d", l.ports[object.GetName()]),
			}}, "ingress")
			if object.GetName() == "screening" || object.GetName() == "marketing" {
				l.setIn(object, []any{map[string]any{
					"port": map[string]any{"number": int64(port), "protocol": "GRPC", "name": "grpc"}, "bind": wayIP(index), "captureMode": "NONE",
					"hosts": []any{"./hospital.checkup.svc.cluster.local"},
				}}, "egress")
			}
		case "RequestAuthentication":
			rules := spec(object, "jwtRules").([]any)
			rules[0].(map[string]any)["jwks"] = jwks
		case "Gateway":
			servers := spec(object, "servers").([]any)
			servers[0].(map[string]any)["hosts"] = []any{"*"}
			servers[0].(map[string]any)["tls"] = map[string]any{"mode": "SIMPLE", "serverCertificate": "/lab/tls.crt", "privateKey": "/lab/tls.key"}
		case "VirtualService":
			if hosts := spec(object, "hosts").([]any); hosts[0] == host {
				l.setIn(object, []any{"*"}, "hosts")
			}
		}
	}
}

func (l *lab) setIn(object *unstructured.Unstructured, value any, path ...string) {
	if err := unstructured.SetNestedField(object.Object, value, append([]string{"spec"}, path...)...); err != nil {
		l.t.Fatal(err)
	}
}

func indexOf(service string) int {
	for i, name := range services {
		if name == service {
			return i
		}
	}
	return -1
}

// jwks is the public half of the key that `checkup token` signs with, as README.md says to make it.
func (l *lab) jwks() string {
	l.token("customer", "kim") // makes the key where there is none
	text, err := os.ReadFile(filepath.Join(l.credential, "signing-key.pem"))
	if err != nil {
		l.t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		l.t.Fatal(err)
	}
	x := base64.RawURLEncoding.EncodeToString(key.(ed25519.PrivateKey).Public().(ed25519.PublicKey))
	return fmt.Sprintf(`{"keys": [{"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "x": %q}]}`, x)
}

func (l *lab) token(role, subject string) string {
	l.t.Helper()
	out, err := exec.Command(l.checkup, "token", "--data-dir", l.credential, "--role", role, "--subject", subject).Output()
	if err != nil {
		l.t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// second is another replica of Hospital, on a database of its own: it shows where calls go, not what comes of them.
const second = "hospital-second"

// startLab brings the mesh up with every service, one replica each, or two of Hospital. `change` may alter the manifests before.
func startLab(t *testing.T, hospitals int, change func(*Manifests)) *lab {
	l := &lab{
		t: t, dir: t.TempDir(), checkup: tool(t, "CHECKUP"), envoy: tool(t, "ENVOY"), authority: newAuthority(t),
		ports: map[string]int{}, sidecars: map[string]string{}, processes: map[string]*exec.Cmd{},
	}
	nats := tool(t, "NATS_SERVER")
	l.credential = filepath.Join(l.dir, "keys")
	for i, name := range append(services[:len(services):len(services)], second) {
		l.ports[name] = fixedPort(i)
	}

	// Upstream's Envoy has none of Istio's own extensions.
	features.MetadataExchange, features.ALPNFilter = false, false
	manifests, err := load()
	if err != nil {
		t.Fatal(err)
	}
	installed, err := manifests.installed()
	if err != nil {
		t.Fatal(err)
	}
	config, account, err := meshConfigOf(installed)
	if err != nil {
		t.Fatal(err)
	}
	config.DefaultProviders = &meshconfig.MeshConfig_DefaultProviders{}
	descriptors, _ := descriptorsOf(manifests)
	if l.contract, err = readContract(descriptors); err != nil {
		t.Fatal(err)
	}
	l.account = account
	change(manifests)
	l.onLoopback(manifests)
	text, err := encode(manifests.Objects)
	if err != nil {
		t.Fatal(err)
	}
	door := fixedPort(8)
	var cluster []string
	for i, name := range services {
		cluster = append(cluster, workload{name, "checkup", name, fmt.Sprintf("10.1.0.%d", i+1), podIP(i), "app.kubernetes.io/name: " + name, "grpc", port, port}.String())
	}
	if hospitals == 2 {
		pod := workload{"hospital", "checkup", "hospital", "10.1.0.1", podIP(len(services)), "app.kubernetes.io/name: hospital, lab: second", "grpc", port, port}
		_, pods, _ := strings.Cut(pod.String(), "---") // the Service is there
		pods = strings.NewReplacer("hospital-0", "hospital-1", "hospital-a", "hospital-b").Replace(pods)
		cluster = append(cluster, pods)
	}
	cluster = append(cluster, workload{"istio-ingressgateway", "istio-ingress", account, "10.1.1.1", address(0, 99), "istio: ingressgateway", "https", 443, door}.String())
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.xds, l.door = listener.Addr().String(), fmt.Sprintf("127.0.0.1:%d", door)
	xds.NewFakeDiscoveryServer(t, xds.FakeOptions{
		ConfigString: text, KubernetesObjectString: strings.Join(cluster, "---"), MeshConfig: config,
		ListenerBuilder: func() (net.Listener, error) { return listener, nil },
	})

	broker := fixedPort(9)
	l.start("nats", exec.Command(nats, "-a", "127.0.0.1", "-p", fmt.Sprint(broker), "-js", "-sd", filepath.Join(l.dir, "nats")))
	for i, name := range services {
		l.proxy(name, "sidecar", podIP(i), "checkup", name, "app.kubernetes.io/name: "+name)
		l.serve(i, name, broker)
	}
	if hospitals == 2 {
		l.proxy(second, "sidecar", podIP(len(services)), "checkup", "hospital", "app.kubernetes.io/name: hospital, lab: second")
		l.serve(0, second, broker)
	}
	l.proxy("gateway", "router", address(0, 99), "istio-ingress", account, "istio: ingressgateway")
	l.eventually("the mesh answers", func() error {
		for _, path := range []string{"/v1/hospitals", "/v1/screenings", "/v1/reservations", "/v1/customers/kim/myPage", "/v1/marketing/demandSignals"} {
			token := l.token("auditor", "kang")
			if status, body := l.rest("GET", path, token, ""); status != 200 {
				return fmt.Errorf("%s: %d %s", path, status, body)
			}
		}
		return nil
	})
	return l
}

// serve starts a process of checkup. It finds Hospital by its name, which leads to its own sidecar: in a cluster by redirection, here by
// an /etc/hosts of its own.
func (l *lab) serve(index int, name string, broker int) {
	hosts := filepath.Join(l.dir, name+".hosts")
	own, err := os.ReadFile("/etc/hosts")
	if err != nil {
		l.t.Fatal(err)
	}
	line := wayIP(index) + " hospital.checkup.svc.cluster.local\n"
	if err := os.WriteFile(hosts, append([]byte(line), own...), 0o644); err != nil {
		l.t.Fatal(err)
	}
	l.start(name, exec.Command("unshare", "--mount", "--map-root-user", "sh", "-c",
		`hosts=$1; shift; mount --bind "$hosts" /etc/hosts && exec "$@"`, "sh", hosts,
		l.checkup, "serve", strings.TrimSuffix(name, "-second"), "--data-dir", filepath.Join(l.dir, name), "--addr", fmt.Sprintf("127.0.0.1:%d", l.ports[name]),
		"--set", "identity.key_dir="+l.credential, "--set", fmt.Sprintf("events.nats=nats://127.0.0.1:%d", broker),
		"--set", fmt.Sprintf("screening.hospital_address=http://hospital.checkup.svc.cluster.local:%d", port),
		"--set", fmt.Sprintf("marketing.hospital_address=http://hospital.checkup.svc.cluster.local:%d", port)))
}

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

func TestLoopbackMesh(t *testing.T) {
	l := startLab(t, 1, func(*Manifests) {})
	admin, kim, lee := l.token("admin", "lee"), l.token("customer", "kim"), l.token("customer", "park")
	date := time.Now().Add(30 * 24 * time.Hour)
	slot := "hospitals/han-river/slots/" + date.Format("2006-01-02")
	expect := func(what string, status, wanted int, body, part string) {
		t.Helper()
		if status != wanted || !strings.Contains(body, part) {
			t.Errorf("%s: %d %s", what, status, body)
		}
	}

	t.Run("REST", func(t *testing.T) {
		status, body := l.rest("POST", "/v1/hospitals", admin, fmt.Sprintf(`{"hospitalId":"han-river","hospital":{"displayName":"한강검진센터","timeZone":"Asia/Seoul"},
			"initialSlots":[{"date":{"year":%d,"month":%d,"day":%d},"capacity":1}]}`, date.Year(), date.Month(), date.Day()))
		expect("a hospital is registered", status, 200, body, `"name":"hospitals/han-river"`)
		status, body = l.rest("POST", "/v1/screenings?requestId=7f2c1a9e-3b44-4c6e-9a51-0d8e6c1b2f30", kim, fmt.Sprintf(`{"customer":"customers/kim","slot":%q}`, slot))
		expect("a place is booked", status, 200, body, `"state":"CONFIRMED"`)
		status, body = l.rest("GET", "/v1/"+slot, "", "")
		expect("a read without a token", status, 200, body, `"bookedCount":1,"remainingCount":0`)
		status, body = l.rest("POST", "/v1/screenings", lee, fmt.Sprintf(`{"customer":"customers/park","slot":%q}`, slot))
		expect("a full slot", status, 400, body, `"reason":"SLOT_FULL"`)
		status, body = l.rest("GET", "/v1/hospitals/nowhere", "", "")
		expect("a hospital that is not there", status, 404, body, `"reason":"HOSPITAL_NOT_FOUND"`)
		status, body = l.rest("GET", "/v1/nowhere", "", "")
		expect("a path that no method has", status, 404, body, "")
		status, body = l.rest("GET", "/v1/hospitals?pageSiz=1", "", "")
		expect("a misspelt parameter", status, 400, body, "")
		status, body = l.rest("GET", "/v1/hospitals?pageSize=1&showDeleted=true", "", "")
		expect("parameters by their names in JSON", status, 200, body, "han-river")
		year, month, day := date.Date()
		status, body = l.rest("GET", fmt.Sprintf("/v1/hospitals/han-river/slots?startDate.year=%d&startDate.month=%d&startDate.day=%d", year, month, day), "", "")
		expect("a date in the query", status, 200, body, slot)
		status, body = l.rest("GET", "/v1/customers/kim/myPage", kim, "")
		expect("my page", status, 200, body, `"customers/kim/myPage"`)
	})

	t.Run("tokens", func(t *testing.T) {
		status, body := l.rest("GET", "/v1/screenings", "", "")
		expect("no token", status, 401, body, `"reason":"CREDENTIALS_MISSING"`)
		status, body = l.rest("GET", "/v1/hospitals", kim[:len(kim)-8]+"AAAAAAAA", "")
		expect("a token with another signature", status, 401, body, "Jwt verification fails")
		status, body = l.rest("POST", "/v1/hospitals", kim, `{"hospital":{"displayName":"x","timeZone":"Asia/Seoul"}}`)
		expect("a customer who registers a hospital", status, 403, body, `"reason":"ROLE_REQUIRED"`)
	})

	t.Run("gRPC", func(t *testing.T) {
		call := l.dial(l.door, l.outside("h2"))
		got, err := call("hospital.v1.HospitalService/GetSlot", "", fmt.Sprintf(`{"name": %q}`, slot))
		if err != nil || !strings.Contains(got, `"bookedCount":1`) {
			t.Errorf("GetSlot: %s %v", got, err)
		}
		_, err = call("screening.v1.ScreeningService/CreateScreening", kim, fmt.Sprintf(`{"screening": {"customer": "customers/kim", "slot": %q}}`, slot))
		refused(t, err, codes.AlreadyExists, "CUSTOMER_DATE_CONFLICT")
		_, err = call("hospital.v1.HospitalService/GetSlot", "not.a.token", fmt.Sprintf(`{"name": %q}`, slot))
		refused(t, err, codes.Unauthenticated, "")
		_, err = call("hospital.v1.CapacityService/ReserveCapacity", admin, fmt.Sprintf(`{"slot": %q, "claimId": "7f2c1a9e-3b44-4c6e-9a51-0d8e6c1b2f30.1"}`, slot))
		refused(t, err, codes.Unimplemented, "") // it has no route
	})

	t.Run("gRPC-web", func(t *testing.T) {
		message := l.message("checkup.hospital.v1.GetSlotRequest", fmt.Sprintf(`{"name": %q}`, slot))
		frame := append([]byte{0, 0, 0, 0, byte(len(message))}, message...)
		response, body := l.http("POST", "/checkup.hospital.v1.HospitalService/GetSlot", map[string]string{
			"content-type": "application/grpc-web+proto", "x-grpc-web": "1", "origin": "https://www.checkup.example.com"}, frame)
		if response.StatusCode != 200 || !strings.HasPrefix(response.Header.Get("content-type"), "application/grpc-web") ||
			!bytes.Contains(body, []byte("grpc-status:0")) || !bytes.Contains(body, []byte(slot)) {
			t.Errorf("%d %v %q", response.StatusCode, response.Header, body)
		}
		if response.Header.Get("access-control-allow-origin") != "https://www.checkup.example.com" {
			t.Errorf("a browser would not show it: %v", response.Header)
		}
		for path, origin := range map[string]string{
			"/checkup.hospital.v1.HospitalService/GetSlot": "https://www.checkup.example.com",
			"/v1/" + slot: "https://www.checkup.example.com", "/v1/hospitals": "https://elsewhere.example.com",
		} {
			response, _ := l.http("OPTIONS", path, map[string]string{"origin": origin, "access-control-request-method": "POST"}, nil)
			allowed := response.Header.Get("access-control-allow-origin") != ""
			if allowed != (origin == "https://www.checkup.example.com") {
				t.Errorf("preflight of %s from %s: %v", path, origin, response.Header)
			}
		}
	})

	t.Run("identities", func(t *testing.T) {
		reserve := fmt.Sprintf(`{"slot": %q, "claimId": "7f2c1a9e-3b44-4c6e-9a51-0d8e6c1b2f31.1"}`, slot)
		hospital := podIP(0) + ":8080"
		denied := "RBAC: access denied"
		service := l.token("service", "screening")
		for identity, method := range map[string]string{
			"checkup/sa/stranger": "hospital.v1.HospitalService/GetSlot", "checkup/sa/marketing": "hospital.v1.CapacityService/ReserveCapacity",
			"checkup/sa/mypage": "hospital.v1.HospitalService/GetSlot", "istio-ingress/sa/" + l.account: "hospital.v1.CapacityService/ReserveCapacity",
			"checkup/sa/screening": "hospital.v1.HospitalService/DeleteHospital", "other/sa/screening": "hospital.v1.CapacityService/ReserveCapacity",
		} {
			body := fmt.Sprintf(`{"name": %q}`, slot)
			if strings.HasSuffix(method, "ReserveCapacity") {
				body = reserve
			}
			// a token that the service itself would take: what refuses is the mesh
			_, err := l.dial(hospital, l.inside("spiffe://cluster.local/ns/"+identity))(method, service, body)
			if status.Code(err) != codes.PermissionDenied || status.Convert(err).Message() != denied {
				t.Errorf("%s at %s: %v", identity, method, err)
			}
		}
		screening := l.dial(hospital, l.inside("spiffe://cluster.local/ns/checkup/sa/screening"))
		_, err := screening("hospital.v1.CapacityService/ReserveCapacity", service, reserve)
		refused(t, err, codes.FailedPrecondition, "SLOT_FULL")
		_, err = screening("hospital.v1.CapacityService/ReserveCapacity", "", reserve)
		refused(t, err, codes.Unauthenticated, "CREDENTIALS_MISSING")
		_, err = screening("hospital.v1.CapacityService/ReserveCapacity", kim, reserve)
		refused(t, err, codes.PermissionDenied, "ROLE_REQUIRED")

		door := l.dial(hospital, l.inside("spiffe://cluster.local/ns/istio-ingress/sa/"+l.account))
		claims := fmt.Sprintf(`{"slot": %q}`, slot)
		if _, err := door("hospital.v1.CapacityService/ListCapacityClaims", l.token("auditor", "kang"), claims); err != nil {
			t.Errorf("an auditor: %v", err)
		}
		if _, err := door("hospital.v1.CapacityService/ListCapacityClaims", admin, claims); status.Convert(err).Message() != denied {
			t.Errorf("an admin: %v", err)
		}

		for what, config := range map[string]*tls.Config{
			"plaintext": nil, "no certificate": {InsecureSkipVerify: true, NextProtos: []string{"h2"}},
			"a certificate of another authority": newLabTLS(t, newAuthority(t), "spiffe://cluster.local/ns/checkup/sa/screening"),
		} {
			_, err := l.dial(hospital, config)("hospital.v1.HospitalService/GetSlot", service, fmt.Sprintf(`{"name": %q}`, slot))
			if status.Code(err) != codes.Unavailable {
				t.Errorf("%s: %v", what, err)
			}
		}
	})

	t.Run("the tools of the binary", func(t *testing.T) {
		through := l.plain()
		for _, command := range [][]string{{"demo"}, {"verify", "--settle", "20s"}} {
			out, err := exec.Command(l.checkup, append(command, "--addr", through, "--data-dir", l.credential)...).CombinedOutput()
			t.Logf("checkup %s:\n%s", command[0], out)
			if err != nil {
				t.Errorf("checkup %s: %v", command[0], err)
			}
		}
	})
	t.Run("refusals eject nobody and are not repeated", func(t *testing.T) {
		call := l.dial(l.door, l.outside("h2"))
		const counters = "ejections_enforced_total|upstream_rq_retry$|upstream_rq_active_overflow"
		before := map[string]int{}
		for _, proxy := range []string{"gateway", "screening", "hospital"} {
			before[proxy] = total(l.stats(proxy, counters)) // the mesh's start is no quiet time
		}
		for _, refusal := range []struct {
			code                        codes.Code
			reason, method, token, body string
		}{
			{codes.InvalidArgument, "FIELD_INVALID", "hospital.v1.HospitalService/GetHospital", "", `{"name": "x"}`},
			{codes.InvalidArgument, "PAGE_TOKEN_INVALID", "hospital.v1.HospitalService/ListHospitals", "", `{"pageToken": "x"}`},
			{codes.NotFound, "HOSPITAL_NOT_FOUND", "hospital.v1.HospitalService/GetHospital", "", `{"name": "hospitals/nowhere"}`},
			{codes.AlreadyExists, "HOSPITAL_ALREADY_EXISTS", "hospital.v1.HospitalService/CreateHospital", admin, `{"hospitalId": "han-river", "hospital": {"displayName": "x", "timeZone": "Asia/Seoul"}}`},
			{codes.AlreadyExists, "CUSTOMER_DATE_CONFLICT", "screening.v1.ScreeningService/CreateScreening", kim, fmt.Sprintf(`{"screening": {"customer": "customers/kim", "slot": %q}}`, slot)},
			{codes.FailedPrecondition, "SLOT_FULL", "screening.v1.ScreeningService/CreateScreening", lee, fmt.Sprintf(`{"screening": {"customer": "customers/park", "slot": %q}}`, slot)},
			{codes.Aborted, "ETAG_MISMATCH", "hospital.v1.HospitalService/SetSlotCapacity", admin, fmt.Sprintf(`{"name": %q, "capacity": 3, "etag": "stale"}`, slot)},
			{codes.Unauthenticated, "CREDENTIALS_MISSING", "screening.v1.ScreeningService/ListScreenings", "", `{}`},
			{codes.PermissionDenied, "ROLE_REQUIRED", "hospital.v1.HospitalService/DeleteHospital", kim, `{"name": "hospitals/han-river"}`},
			{codes.PermissionDenied, "NOT_OWNER", "mypage.v1.MyPageService/GetMyPage", lee, `{"name": "customers/kim/myPage"}`},
		} {
			for range 1000 {
				_, err := call(refusal.method, refusal.token, refusal.body)
				if !refused(t, err, refusal.code, refusal.reason) {
					break
				}
			}
		}
		for proxy, before := range before {
			if counted := total(l.stats(proxy, counters)) - before; counted != 0 {
				t.Errorf("%s: %d ejections, retries or overflows", proxy, counted)
			}
		}
		if answered := total(l.stats("gateway", "cluster.outbound.*upstream_rq_completed")); answered < 10_000 {
			t.Errorf("only %d calls were counted", answered)
		}
	})

	t.Run("what may be repeated is, and nothing else", func(t *testing.T) {
		_ = l.processes["hospital"].Process.Kill()
		call := l.dial(l.door, l.outside("h2"))
		before := total(l.stats("gateway", "upstream_rq_retry$"))
		_, err := call("hospital.v1.HospitalService/CreateHospital", admin, `{"hospital": {"displayName": "x", "timeZone": "Asia/Seoul"}}`)
		if status.Code(err) != codes.Unavailable {
			t.Errorf("a write: %v", err)
		}
		if after := total(l.stats("gateway", "upstream_rq_retry$")); after != before {
			t.Errorf("a write was repeated %d times", after-before)
		}
		_, err = call("hospital.v1.HospitalService/GetSlot", "", fmt.Sprintf(`{"name": %q}`, slot))
		if status.Code(err) != codes.Unavailable {
			t.Errorf("a read: %v", err)
		}
		if after := total(l.stats("gateway", "upstream_rq_retry$")); after == before {
			t.Error("a read was not repeated")
		}
	})
}

// TestLoopbackLimit has a bucket of five, so that a slow machine empties it too.
func TestLoopbackLimit(t *testing.T) {
	l := startLab(t, 1, edit("EnvoyFilter", "rate-limit", "configPatches", func(patches []any) {
		config := patches[0].(map[string]any)["patch"].(map[string]any)["value"].(map[string]any)["typed_config"].(map[string]any)
		config["token_bucket"] = map[string]any{"max_tokens": int64(5), "tokens_per_fill": int64(5), "fill_interval": "1s"}
	}))
	call, limited := l.dial(l.door, l.outside("h2")), 0
	l.eventually("a call passes", func() error {
		_, err := call("hospital.v1.HospitalService/ListHospitals", "", `{}`)
		return err
	})
	for range 50 {
		_, err := call("hospital.v1.HospitalService/ListHospitals", "", `{}`)
		if err != nil {
			limited++
			refused(t, err, codes.ResourceExhausted, "")
		}
	}
	if limited == 0 {
		t.Error("50 calls passed a bucket of five")
	}
}

// TestLoopbackAffinity books at many dates with two replicas of Hospital: all calls for one date go to one of them. The binary names the
// slot in every call, Screening's proxy hashes what it is told.
func TestLoopbackAffinity(t *testing.T) {
	l := startLab(t, 2, func(*Manifests) {})
	call := l.dial(l.door, l.outside("h2"))
	used := map[string]int{}
	for day := range 20 {
		before := l.hosts("screening")
		slot := fmt.Sprintf("hospitals/han-river/slots/2027-03-%02d", day+1)
		for i := range 5 {
			customer := fmt.Sprintf("c-%d-%d", day, i)
			// Neither database knows the hospital, which is an answer too.
			_, err := call("screening.v1.ScreeningService/CreateScreening", l.token("customer", customer),
				fmt.Sprintf(`{"screening": {"customer": "customers/%s", "slot": %q}}`, customer, slot))
			refused(t, err, codes.NotFound, "HOSPITAL_NOT_FOUND")
		}
		var at []string
		for address, calls := range l.hosts("screening") {
			if calls != before[address] {
				at = append(at, address)
				used[address]++
			}
		}
		if len(at) != 1 {
			t.Errorf("calls for %s went to %v", slot, at)
		}
	}
	if len(used) != 2 {
		t.Errorf("dates are spread over %v", used)
	}
}

// hosts counts the calls a proxy has sent to each replica of Hospital.
func (l *lab) hosts(name string) map[string]int {
	l.t.Helper()
	response, err := http.Get(fmt.Sprintf("http://%s:9901/clusters", l.sidecars[name]))
	if err != nil {
		l.t.Fatal(err)
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	counted := map[string]int{}
	for line := range strings.Lines(string(text)) {
		parts := strings.Split(strings.TrimSpace(line), "::")
		var calls int
		if len(parts) == 4 && strings.HasPrefix(parts[0], "outbound|8080||hospital.") && parts[2] == "rq_total" {
			if _, err := fmt.Sscan(parts[3], &calls); err == nil {
				counted[parts[1]] = calls
			}
		}
	}
	return counted
}

func total(counters map[string]int) (sum int) {
	for _, value := range counters {
		sum += value
	}
	return sum
}

// refused says whether a call was answered with this code and, where one is named, this reason in its ErrorInfo.
func refused(t *testing.T, err error, code codes.Code, reason string) bool {
	t.Helper()
	got := status.Convert(err)
	named := ""
	for _, detail := range got.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			named = info.Reason
		}
	}
	if got.Code() != code || named != reason {
		t.Errorf("%s %q (%s) instead of %s %q", got.Code(), named, got.Message(), code, reason)
		return false
	}
	return true
}

// inside is a client with an identity of the mesh.
func (l *lab) inside(identity string) *tls.Config { return newLabTLS(l.t, l.authority, identity) }

func newLabTLS(t *testing.T, authority *authority, identity string) *tls.Config {
	t.Helper()
	pair, err := tls.X509KeyPair(authority.issue(t, identity))
	if err != nil {
		t.Fatal(err)
	}
	// Whom it reaches is not in question here.
	return &tls.Config{Certificates: []tls.Certificate{pair}, InsecureSkipVerify: true, NextProtos: []string{"h2"}}
}

// dial returns how to call a method there, with JSON on both sides; nil is no TLS.
func (l *lab) dial(address string, config *tls.Config) func(method, token, body string) (string, error) {
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
	return func(method, token, body string) (string, error) {
		service, name, _ := strings.Cut("checkup."+method, "/")
		found, err := l.contract.files.FindDescriptorByName(protoreflect.FullName(service + "." + name))
		if err != nil {
			return "", err
		}
		descriptor := found.(protoreflect.MethodDescriptor)
		request, answer := dynamicpb.NewMessage(descriptor.Input()), dynamicpb.NewMessage(descriptor.Output())
		if err := protojson.Unmarshal([]byte(body), request); err != nil {
			return "", err
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if token != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
		}
		if err := connection.Invoke(ctx, "/"+service+"/"+name, request, answer); err != nil {
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
