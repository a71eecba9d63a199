package mesh

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// half is a REST request that means something else than it would be taken for, and what has to become of it.
type half struct {
	what, verb, path, body string
	status                 int
	says                   string // a part of the message
}

// halfUnderstood: each of these was once answered with 200, or with a text where JSON is promised. None may have an
// effect.
func (s *scene) halfUnderstood(t *testing.T) {
	o := s.open("half-understood", 2, 10)
	s.open("half-other", 1, 10)
	slot, screening := "/v1/"+o.slots[0], fmt.Sprintf(`{"customer":"customers/kim","slot":%q}`, o.slots[0])
	before := s.state(t, o)
	for _, one := range []half{
		{"a body that names another hospital", "PATCH", "/v1/" + o.name, `{"hospital":{"name":"hospitals/half-other","displayName":"x"},"updateMask":"displayName"}`, 400, "conflicting"},
		{"a query that names another hospital", "DELETE", "/v1/" + o.name + "?name=hospitals/half-other", "", 400, "name is said by the path"},
		{"the same in a PATCH", "PATCH", "/v1/" + o.name + "?hospital.name=hospitals/half-other", `{"hospital":{"displayName":"x"}}`, 400, "hospital.name is said by the path"},
		{"a misspelt field", "POST", slot + ":close", `{"cancelBooking":true}`, 400, "cancelBooking is not a field of hospital.v1.CloseSlotRequest; its fields are cancelBookings, "},
		{"a misspelt field further inside", "POST", "/v1/hospitals", `{"hospital":{"displayName":"x","timeZone":"Asia/Seoul","bookingPolicy":{"minNotic":"1s"}}}`, 400, "hospital.bookingPolicy.minNotic is not a field"},
		{"a flag beside the resource that used to be the body", "POST", "/v1/screenings", screening[:len(screening)-1] + `,"validateOnly":true}`, 400, "customer is not a field of screening.v1.CreateScreeningRequest"},
		{"a misspelt field of a rule", "POST", "/v1/" + o.name + "/slots:batchClose", rangeOf("dayOfWeek", "SUNDAY"), 400, "dayOfWeek is not a field of hospital.v1.DateRepetition"},
		{"a day that no week has", "POST", "/v1/" + o.name + "/slots:batchClose", rangeOf("daysOfWeek", "SUNDAYS"), 400, "SUNDAYS"},
		{"a field by its two names", "POST", slot + ":close", `{"cancelBookings":true,"cancel_bookings":false}`, 400, "given twice"},
		{"a flag that says both", "DELETE", "/v1/" + o.name + "?validateOnly=true&validateOnly=false", "", 400, "given twice"},
		{"a flag without a value", "DELETE", "/v1/" + o.name + "?validateOnly", "", 400, "validateOnly"},
		{"a flag in a body that is none", "DELETE", "/v1/" + o.name, `{"validateOnly":true}`, 400, "takes no body"},
		{"what JSON does not allow", "POST", slot + ":close", `{cancelBookings:true}`, 400, "not JSON"},
		{"two requests in one", "POST", slot + ":close", `{}{}`, 400, "not JSON"},
		{"a list of requests", "POST", slot + ":close", `[{}]`, 400, "not a list"},
		{"a body that ends early", "POST", slot + ":close", `{"reason":"x`, 400, "not JSON"},
		{"a number that is none", "POST", slot + ":setCapacity", `{"delta":"many"}`, 400, "delta"},
		{"two of which only one can be", "POST", slot + ":setCapacity", `{"delta":1,"capacity":7}`, 400, "oneof"},
		{"a body as deep as it is long", "POST", slot + ":close", strings.Repeat(`{"reason":`, 40), 400, "reason is not an object"},
		{"a misspelt flag in the query", "GET", "/v1/screenings?showWaitlist=true", "", 400, "showWaitlist is not a field"},
		{"a misspelt parameter", "GET", "/v1/hospitals?pageSiz=1", "", 400, "pageSiz is not a field"},
		{"a misspelt verb", "POST", slot + ":clos", `{}`, 404, "no method of the contract is POST"},
		{"a verb of HTTP that is not bound", "PUT", slot, `{}`, 404, "no method of the contract is PUT"},
		{"a path that no method has", "GET", "/v1/nowhere", "", 404, "no method of the contract is GET /v1/nowhere"},
		{"a body that is too large", "POST", slot + ":close", fmt.Sprintf(`{"reason":%q}`, strings.Repeat("x", 2<<20)), 413, "Large"},
	} {
		headers := map[string]string{"authorization": "Bearer " + s.admin}
		if one.body != "" {
			headers["content-type"] = "application/json"
		}
		response, text := s.http(one.verb, one.path, headers, []byte(one.body))
		if problem := refusal(response, text, one.status, one.says); problem != "" {
			t.Errorf("%s: %s", one.what, problem)
		}
	}
	if after := s.state(t, o); after != before {
		t.Errorf("something happened:\n%s\n%s", before, after)
	}
	s.understood(t, o)
}

// state is what the requests above could have changed.
func (s *scene) state(t *testing.T, o *opened) string {
	t.Helper()
	var all []string
	for _, path := range []string{"/v1/" + o.name, "/v1/hospitals/half-other", "/v1/" + o.slots[0], "/v1/screenings?filter=" + `hospital+%3D+"` + o.name + `"`} {
		status, body := s.rest("GET", path, s.admin, "")
		expect(t, path, status, 200, body, "")
		all = append(all, body)
	}
	return strings.Join(all, "\n")
}

// refusal says what is wrong with an answer of the gateway's own: it has to be a google.rpc.Status in JSON.
func refusal(response *http.Response, text []byte, status int, says string) string {
	answer := struct {
		Code    int
		Message string
		Details []map[string]any
	}{}
	err := json.Unmarshal(text, &answer)
	code := map[int]int{400: 3, 401: 16, 404: 5, 413: 3, 429: 8, 503: 14}[status]
	named := status != 400 || (len(answer.Details) > 0 && answer.Details[0]["reason"] == "FIELD_INVALID")
	if err != nil || response.StatusCode != status || response.Header.Get("content-type") != "application/json" || answer.Code != code ||
		answer.Details == nil || !named || !strings.Contains(answer.Message, says) {
		return fmt.Sprintf("%d %s %s", response.StatusCode, response.Header.Get("content-type"), text)
	}
	return ""
}

// understood: what is close to the above and right is not refused with it.
func (s *scene) understood(t *testing.T, o *opened) {
	slot, screening := "/v1/"+o.slots[1], fmt.Sprintf(`{"customer":"customers/park","slot":%q}`, o.slots[1])
	full := s.bookedOut(t)
	var days []string
	for day := range 300 {
		days = append(days, fmt.Sprintf(`{"parent":%q,"requestId":"","slot":{"date":{"year":2028,"month":%d,"day":%d},"capacity":1}}`, o.name, day%12+1, day/12%28+1))
	}
	for _, one := range []half{
		{"a flag in the body", "POST", "/v1/screenings", `{"screening":` + screening + `,"validateOnly":true}`, 200, `"state":"CONFIRMED"`},
		{"it was only judged", "GET", slot, "", 200, `"bookedCount":0`},
		{"the contract's names", "POST", "/v1/screenings", `{"screening":` + screening + `,"request_id":"7f2c1a9e-3b44-4c6e-9a51-0d8e6c1b2f40"}`, 200, `"state":"CONFIRMED"`},
		{"the same again", "POST", "/v1/screenings", "\n" + `{ "requestId" : "7f2c1a9e-3b44-4c6e-9a51-0d8e6c1b2f40" , "screening": ` + screening + ` } `, 200, `"state":"CONFIRMED"`},
		{"a body that names the same hospital", "PATCH", "/v1/" + o.name, `{"hospital":{"name":"` + o.name + `","displayName":"따옴표 \" 역슬래시 \\ 😀"},"updateMask":"displayName"}`, 200, `따옴표 \" 역슬래시`},
		{"a flag that queues the booking", "POST", "/v1/screenings", `{"screening":` + full + `,"joinWaitlist":true}`, 200, `"state":"WAITLISTED"`},
		{"its position", "GET", "/v1/screenings?showWaitlisted=true&filter=customer+%3D+%22customers/park%22+AND+state+%3D+WAITLISTED", "", 200, `"waitlistPosition":1`},
		{"a + for a space", "GET", "/v1/hospitals?filter=display_name+%3D+%22half-other%22", "", 200, `"half-other"`},
		{"a list in the query", "GET", "/v1/hospitals:searchAvailability?hospitals=" + o.name + "&hospitals=hospitals/half-other" + fortnight(), "", 200, "hospitals/half-other/slots"},
		{"nothing at all", "POST", slot + ":close", "", 200, `"CLOSED"`},
		{"null", "POST", slot + ":reopen", `{"etag":null}`, 200, `"OPEN"`},
		{"three hundred dates, which are 40 KB", "POST", "/v1/" + o.name + "/slots:batchCreate", `{"requests":[` + strings.Join(days, ",") + `]}`, 200, "slots"},
		{"the dates that a rule names", "POST", "/v1/" + o.name + "/slots:batchCreate", `{"requests":[{"slot":{"date":{"year":2029,"month":1,"day":1},"capacity":1},"repeat":{"endDate":{"year":2030,"month":1,"day":1},"daysOfWeek":["SATURDAY"]}}],"validateOnly":true}`, 200, "slots/2029-12-29"},
		{"they were only judged", "GET", "/v1/" + o.name + "/slots/2029-12-29", "", 404, "SLOT_NOT_FOUND"},
		{"the Sundays of a month", "POST", "/v1/" + o.name + "/slots:batchClose", rangeOf("days_of_week", "SUNDAY"), 200, `"CLOSED"`},
		{"one of them", "GET", "/v1/" + o.name + "/slots/2028-01-16", "", 200, `"CLOSED"`},
		{"the day before", "GET", "/v1/" + o.name + "/slots/2028-01-15", "", 200, `"OPEN"`},
		{"a reason with spaces", "DELETE", "/v1/" + o.name + "?force=true&reason=closed+for+good", "", 200, `"DELETING"`},
	} {
		token := map[bool]string{true: s.park, false: s.admin}[strings.HasSuffix(one.path, "/screenings")]
		status, body := s.rest(one.verb, one.path, token, one.body)
		if status != one.status || !strings.Contains(body, one.says) {
			t.Errorf("%s: %d %.300s", one.what, status, body)
		}
	}
	s.eventually("the customer reads why, with spaces", func() error {
		if _, body := s.rest("GET", "/v1/screenings", s.park, ""); !strings.Contains(body, `"closed for good"`) {
			return fmt.Errorf("%.500s", body)
		}
		return nil
	})
}

// bookedOut is a booking by park of a slot that has no place left.
func (s *scene) bookedOut(t *testing.T) string {
	slot := s.open("half-full", 1, 1).slots[0]
	status, body := s.rest("POST", "/v1/screenings", s.admin, fmt.Sprintf(`{"screening":{"customer":"customers/walk-in","slot":%q}}`, slot))
	expect(t, "the only place", status, 200, body, `"state":"CONFIRMED"`)
	return fmt.Sprintf(`{"customer":"customers/park","slot":%q}`, slot)
}

// rangeOf is the body of a call that closes days of January 2028; field is what it calls the days of the week.
func rangeOf(field, day string) string {
	return fmt.Sprintf(`{"ranges":[{"startDate":{"year":2028,"month":1,"day":1},"repeat":{"endDate":{"year":2028,"month":2,"day":1},%q:[%q]}}]}`, field, day)
}

// fortnight is the next two weeks as parameters of a query.
func fortnight() string {
	first, last := time.Now(), time.Now().AddDate(0, 0, 14)
	return fmt.Sprintf("&startDate.year=%d&startDate.month=%d&startDate.day=%d&endDate.year=%d&endDate.month=%d&endDate.day=%d",
		first.Year(), first.Month(), first.Day(), last.Year(), last.Month(), last.Day())
}

// largePage: as much as one page of a list can hold comes through as JSON.
func (s *scene) largePage(t *testing.T) {
	o := s.open("large-page", 300, 10)
	call, marketing := s.dial(s.door, s.outside("h2")), s.token("service", "marketing")
	for i := range 900 {
		body := fmt.Sprintf(`{"parent":%q,"capacityRequest":{"slot":%q,"additionalCapacity":1,"justification":%q},"requestId":%q}`,
			o.name, o.slots[i%len(o.slots)], strings.Repeat("<😀", 250), newRequest())
		if _, err := call("hospital.v1.HospitalService/CreateCapacityRequest", marketing, body); err != nil {
			t.Fatal(i, err)
		}
	}
	read, token := 0, ""
	for {
		status, body := s.rest("GET", "/v1/"+o.name+"/capacityRequests?pageSize=1000&pageToken="+token, s.admin, "")
		page := struct {
			CapacityRequests []any
			NextPageToken    string
		}{}
		if err := json.Unmarshal([]byte(body), &page); status != 200 || err != nil {
			t.Fatalf("%d %v %.300s", status, err, body)
		}
		t.Logf("a page of %d requests has %d bytes", len(page.CapacityRequests), len(body))
		read, token = read+len(page.CapacityRequests), page.NextPageToken
		if token == "" {
			break
		}
	}
	if read != 900 {
		t.Errorf("%d of 900 were read", read)
	}
}
