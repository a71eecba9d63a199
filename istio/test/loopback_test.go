package mesh

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	getSlotCall   = "hospital.v1.HospitalService/GetSlot"
	reserveCall   = "capacity.v1.CapacityService/ReserveCapacity"
	claimsCall    = "capacity.v1.CapacityService/ListCapacityClaims"
	registerCall  = "hospital.v1.HospitalService/CreateHospital"
	bookCall      = "screening.v1.ScreeningService/CreateScreening"
	identityForms = "spiffe://cluster.local/ns/"
)

// scene is what the parts of TestLoopbackMesh have in common: a hospital with one date and one place.
type scene struct {
	*lab
	admin, kim, park string
	date             time.Time
	slot             string
}

func TestLoopbackMesh(t *testing.T) {
	l := startLab(t, plan{replicas: map[string]int{"hospital": 2, "screening": 2, "mypage": 2}})
	s := &scene{lab: l, admin: l.token("admin", "lee"), kim: l.token("customer", "kim"), park: l.token("customer", "park")}
	s.date = time.Now().Add(30 * 24 * time.Hour)
	s.slot = "hospitals/han-river/slots/" + s.date.Format("2006-01-02")
	for _, part := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"REST", s.rests}, {"REST that is half understood", s.halfUnderstood}, {"a large page", s.largePage}, {"tokens", s.tokens}, {"gRPC", s.grpc}, {"gRPC-web", s.grpcWeb}, {"a client made from the OpenAPI document", s.openapi}, {"identities", s.identities},
		{"plaintext and foreign certificates", s.strangers}, {"the tools of the binary", s.tools},
		{"refusals eject nobody and are not repeated", s.refusals}, {"what may be repeated is, and nothing else", s.repetition},
	} {
		t.Run(part.name, part.run)
	}
}

func expect(t *testing.T, what string, status, wanted int, body, part string) {
	t.Helper()
	if status != wanted || !strings.Contains(body, part) {
		t.Errorf("%s: %d %s", what, status, body)
	}
}

func (s *scene) rests(t *testing.T) {
	year, month, day := s.date.Date()
	status, body := s.rest("POST", "/v1/hospitals", s.admin, fmt.Sprintf(`{"hospitalId":"han-river","hospital":{"displayName":"한강검진센터","timeZone":"Asia/Seoul"},
		"initialSlots":[{"date":{"year":%d,"month":%d,"day":%d},"capacity":1}]}`, year, month, day))
	expect(t, "a hospital is registered", status, 200, body, `"name":"hospitals/han-river"`)
	status, body = s.rest("POST", "/v1/screenings", s.kim, fmt.Sprintf(`{"screening":{"customer":"customers/kim","slot":%q},"requestId":"7f2c1a9e-3b44-4c6e-9a51-0d8e6c1b2f30"}`, s.slot))
	expect(t, "a place is booked", status, 200, body, `"state":"CONFIRMED"`)
	status, body = s.rest("GET", "/v1/"+s.slot, "", "")
	expect(t, "a read without a token", status, 200, body, `"bookedCount":1,"remainingCount":0`)
	status, body = s.rest("POST", "/v1/screenings", s.park, fmt.Sprintf(`{"screening":{"customer":"customers/park","slot":%q}}`, s.slot))
	expect(t, "a full slot", status, 400, body, `"reason":"SLOT_FULL"`)
	status, body = s.rest("GET", "/v1/hospitals/nowhere", "", "")
	expect(t, "a hospital that is not there", status, 404, body, `"reason":"HOSPITAL_NOT_FOUND"`)
	status, body = s.rest("GET", "/v1/nowhere", "", "")
	expect(t, "a path that no method has", status, 404, body, "")
	status, body = s.rest("GET", "/v1/hospitals?pageSiz=1", "", "")
	expect(t, "a misspelt parameter", status, 400, body, "")
	status, body = s.rest("GET", "/v1/hospitals?pageSize=1&showDeleted=true", "", "")
	expect(t, "parameters by their names in JSON", status, 200, body, "han-river")
	status, body = s.rest("GET", fmt.Sprintf("/v1/hospitals/han-river/slots?startDate.year=%d&startDate.month=%d&startDate.day=%d", year, month, day), "", "")
	expect(t, "a date in the query", status, 200, body, s.slot)
	status, body = s.rest("GET", "/v1/customers/kim/myPage", s.kim, "")
	expect(t, "my page", status, 200, body, `"customers/kim/myPage"`)
}

func (s *scene) tokens(t *testing.T) {
	status, body := s.rest("GET", "/v1/screenings", "", "")
	expect(t, "no token", status, 401, body, `"reason":"CREDENTIALS_MISSING"`)
	status, body = s.rest("GET", "/v1/hospitals", s.kim[:len(s.kim)-8]+"AAAAAAAA", "")
	expect(t, "a token with another signature", status, 401, body, "Jwt verification fails")
	status, body = s.rest("POST", "/v1/hospitals", s.kim, `{"hospital":{"displayName":"x","timeZone":"Asia/Seoul"}}`)
	expect(t, "a customer who registers a hospital", status, 403, body, `"reason":"ROLE_REQUIRED"`)
}

func (s *scene) grpc(t *testing.T) {
	call := s.dial(s.door, s.outside("h2"))
	got, err := call(getSlotCall, "", fmt.Sprintf(`{"name": %q}`, s.slot))
	if err != nil || !strings.Contains(got, `"bookedCount":1`) {
		t.Errorf("GetSlot: %s %v", got, err)
	}
	_, err = call(bookCall, s.kim, fmt.Sprintf(`{"screening": {"customer": "customers/kim", "slot": %q}}`, s.slot))
	refused(t, err, codes.AlreadyExists, "CUSTOMER_DATE_CONFLICT")
	_, err = call(getSlotCall, "not.a.token", fmt.Sprintf(`{"name": %q}`, s.slot))
	refused(t, err, codes.Unauthenticated, "")
	_, err = call(reserveCall, s.admin, fmt.Sprintf(`{"slot": %q, "claimId": "7f2c1a9e-3b44-4c6e-9a51-0d8e6c1b2f30.1"}`, s.slot))
	refused(t, err, codes.Unimplemented, "") // it has no route
}

func (s *scene) grpcWeb(t *testing.T) {
	const page = "https://www.checkup.example.com"
	message := s.message("checkup.hospital.v1.GetSlotRequest", fmt.Sprintf(`{"name": %q}`, s.slot))
	frame := append([]byte{0, 0, 0, 0, byte(len(message))}, message...)
	response, body := s.http("POST", "/checkup.hospital.v1.HospitalService/GetSlot", map[string]string{
		"content-type": "application/grpc-web+proto", "x-grpc-web": "1", "origin": page}, frame)
	if response.StatusCode != 200 || !strings.HasPrefix(response.Header.Get("content-type"), "application/grpc-web") ||
		!bytes.Contains(body, []byte("grpc-status:0")) || !bytes.Contains(body, []byte(s.slot)) {
		t.Errorf("%d %v %q", response.StatusCode, response.Header, body)
	}
	if response.Header.Get("access-control-allow-origin") != page {
		t.Errorf("a browser would not show it: %v", response.Header)
	}
	for path, origin := range map[string]string{
		"/checkup.hospital.v1.HospitalService/GetSlot": page, "/v1/" + s.slot: page, "/v1/hospitals": "https://elsewhere.example.com",
	} {
		response, _ := s.http("OPTIONS", path, map[string]string{"origin": origin, "access-control-request-method": "POST"}, nil)
		allowed := response.Header.Get("access-control-allow-origin") != ""
		if allowed != (origin == page) {
			t.Errorf("preflight of %s from %s: %v", path, origin, response.Header)
		}
	}
}

// openapi generates a client from proto/openapi.yaml and has it book.
func (s *scene) openapi(t *testing.T) {
	authority := filepath.Join(s.dir, "authority.pem")
	if err := os.WriteFile(authority, s.authority.root, 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(tool(t, "OPENAPI_PYTHON"), "../../.ci/clients/openapi_client.py", "--url", "https://"+s.door, "--authority", authority,
		"--admin", s.admin, "--customer", s.kim).CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
}

const denied = "RBAC: access denied"

func (s *scene) identities(t *testing.T) {
	reserve := fmt.Sprintf(`{"slot": %q, "claimId": "7f2c1a9e-3b44-4c6e-9a51-0d8e6c1b2f31.1"}`, s.slot)
	hospital, service := podIP(s.running("hospital")[0].index)+":8080", s.token("service", "screening")
	for identity, method := range map[string]string{
		"checkup/sa/stranger": getSlotCall, "checkup/sa/marketing": reserveCall, "checkup/sa/mypage": getSlotCall,
		"istio-ingress/sa/" + s.account: reserveCall, "checkup/sa/screening": "hospital.v1.HospitalService/DeleteHospital", "other/sa/screening": reserveCall,
	} {
		body := fmt.Sprintf(`{"name": %q}`, s.slot)
		if method == reserveCall {
			body = reserve
		}
		// a token that the service itself would take: what refuses is the mesh
		_, err := s.dial(hospital, s.inside(identityForms+identity))(method, service, body)
		if status.Code(err) != codes.PermissionDenied || status.Convert(err).Message() != denied {
			t.Errorf("%s at %s: %v", identity, method, err)
		}
	}
	screening := s.dial(hospital, s.inside(identityForms+"checkup/sa/screening"))
	_, err := screening(reserveCall, service, reserve)
	refused(t, err, codes.FailedPrecondition, "SLOT_FULL")
	_, err = screening(reserveCall, "", reserve)
	refused(t, err, codes.Unauthenticated, "CREDENTIALS_MISSING")
	_, err = screening(reserveCall, s.kim, reserve)
	refused(t, err, codes.PermissionDenied, "ROLE_REQUIRED")

	door, claims := s.dial(hospital, s.inside(identityForms+"istio-ingress/sa/"+s.account)), fmt.Sprintf(`{"slot": %q}`, s.slot)
	if _, err := door(claimsCall, s.token("auditor", "kang"), claims); err != nil {
		t.Errorf("an auditor: %v", err)
	}
	if _, err := door(claimsCall, s.admin, claims); status.Convert(err).Message() != denied {
		t.Errorf("an admin: %v", err)
	}
}

func (s *scene) strangers(t *testing.T) {
	hospital := podIP(s.running("hospital")[1].index) + ":8080"
	for what, config := range map[string]*tls.Config{
		"plaintext": nil, "no certificate": {InsecureSkipVerify: true, NextProtos: []string{"h2"}},
		"a certificate of another authority": newLabTLS(t, newAuthority(t), identityForms+"checkup/sa/screening"),
	} {
		_, err := s.dial(hospital, config)(getSlotCall, s.token("service", "screening"), fmt.Sprintf(`{"name": %q}`, s.slot))
		if status.Code(err) != codes.Unavailable {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func (s *scene) tools(t *testing.T) {
	for _, command := range [][]string{{"demo"}, {"verify", "--settle", "20s"}} {
		out, err := s.run(command...)
		t.Logf("checkup %s:\n%s", command[0], out)
		if err != nil {
			t.Errorf("checkup %s: %v", command[0], err)
		}
	}
}

func (s *scene) refusals(t *testing.T) {
	call := s.dial(s.door, s.outside("h2"))
	const counters = "ejections_enforced_total|upstream_rq_retry$|upstream_rq_active_overflow"
	proxies := []string{"gateway", "screening", "hospital"}
	before := map[string]int{}
	for _, proxy := range proxies {
		before[proxy] = s.counted(counters, proxy) // the mesh's start is no quiet time
	}
	booking := func(customer string) string {
		return fmt.Sprintf(`{"screening": {"customer": %q, "slot": %q}}`, customer, s.slot)
	}
	for _, refusal := range []struct {
		code                        codes.Code
		reason, method, token, body string
	}{
		{codes.InvalidArgument, "FIELD_INVALID", "hospital.v1.HospitalService/GetHospital", "", `{"name": "x"}`},
		{codes.InvalidArgument, "PAGE_TOKEN_INVALID", "hospital.v1.HospitalService/ListHospitals", "", `{"pageToken": "x"}`},
		{codes.NotFound, "HOSPITAL_NOT_FOUND", "hospital.v1.HospitalService/GetHospital", "", `{"name": "hospitals/nowhere"}`},
		{codes.AlreadyExists, "HOSPITAL_ALREADY_EXISTS", registerCall, s.admin, `{"hospitalId": "han-river", "hospital": {"displayName": "x", "timeZone": "Asia/Seoul"}}`},
		{codes.AlreadyExists, "CUSTOMER_DATE_CONFLICT", bookCall, s.kim, booking("customers/kim")},
		{codes.FailedPrecondition, "SLOT_FULL", bookCall, s.park, booking("customers/park")},
		{codes.Aborted, "ETAG_MISMATCH", "hospital.v1.HospitalService/SetSlotCapacity", s.admin, fmt.Sprintf(`{"name": %q, "capacity": 3, "etag": "stale"}`, s.slot)},
		{codes.Unauthenticated, "CREDENTIALS_MISSING", "screening.v1.ScreeningService/ListScreenings", "", `{}`},
		{codes.PermissionDenied, "ROLE_REQUIRED", "hospital.v1.HospitalService/DeleteHospital", s.kim, `{"name": "hospitals/han-river"}`},
		{codes.PermissionDenied, "NOT_OWNER", "mypage.v1.MyPageService/GetMyPage", s.park, `{"name": "customers/kim/myPage"}`},
	} {
		for range 1000 {
			_, err := call(refusal.method, refusal.token, refusal.body)
			if !refused(t, err, refusal.code, refusal.reason) {
				break
			}
		}
	}
	for _, proxy := range proxies {
		if counted := s.counted(counters, proxy) - before[proxy]; counted != 0 {
			t.Errorf("%s: %d ejections, retries or overflows", proxy, counted)
		}
	}
	if answered := s.counted("cluster.outbound.*upstream_rq_completed", "gateway"); answered < 10_000 {
		t.Errorf("only %d calls were counted", answered)
	}
}

func (s *scene) repetition(t *testing.T) {
	for _, pod := range s.running("hospital") {
		pod.kill()
	}
	call := s.dial(s.door, s.outside("h2"))
	repeated := func() int { return s.counted("upstream_rq_retry$", "gateway") }
	before := repeated()
	_, err := call(registerCall, s.admin, `{"hospital": {"displayName": "x", "timeZone": "Asia/Seoul"}}`)
	if status.Code(err) != codes.Unavailable {
		t.Errorf("a write: %v", err)
	}
	if after := repeated(); after != before {
		t.Errorf("a write was repeated %d times", after-before)
	}
	_, err = call(getSlotCall, "", fmt.Sprintf(`{"name": %q}`, s.slot))
	if status.Code(err) != codes.Unavailable {
		t.Errorf("a read: %v", err)
	}
	if after := repeated(); after == before {
		t.Error("a read was not repeated")
	}
}
