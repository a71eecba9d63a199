package mesh

import (
	"fmt"
	"slices"
	"strings"

	transcoder "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_json_transcoder/v3"
	lua "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/lua/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
)

// What a page of a list may have in gRPC (k8s/ and the services say how it is bounded), and how much longer JSON may
// make it: a character such as `<` has one byte there and six here.
const (
	largestPage    = 3 << 20
	largestRequest = 256 << 10
	jsonOfByte     = 6
)

// rest: what REST half understands is refused, what it refuses is said in JSON, and what is allowed fits.
func rest(manager *hcm.HttpConnectionManager, contract *Contract) (problems []string) {
	json, script := &transcoder.GrpcJsonTranscoder{}, &lua.Lua{}
	if filter := filterConfig(manager, "envoy.filters.http.grpc_json_transcoder"); filter != nil {
		_ = filter.GetTypedConfig().UnmarshalTo(json)
	}
	if !json.GetRequestValidationOptions().GetRejectBindingBodyFieldCollisions() {
		problems = append(problems, "gateway: a body may name another resource than its path")
	}
	if !json.GetQueryParamUnescapePlus() {
		problems = append(problems, "gateway: a + in a query is no space")
	}
	if got := json.GetMaxResponseBodySize().GetValue(); got < largestPage*jsonOfByte {
		problems = append(problems, fmt.Sprintf("gateway: a page may have %d bytes of JSON", got))
	}
	if got := json.GetMaxRequestBodySize().GetValue(); got < 2*largestRequest {
		problems = append(problems, fmt.Sprintf("gateway: a request may have %d bytes of JSON", got))
	}
	if filter := filterConfig(manager, "envoy.filters.http.lua"); filter != nil {
		_ = filter.GetTypedConfig().UnmarshalTo(script)
	}
	source := script.GetDefaultSourceCode().GetInlineString()
	if !strings.Contains(source, "function envoy_on_request(") {
		problems = append(problems, "gateway: REST that is half understood is not refused")
	}
	for _, method := range contract.Methods {
		if method.Public && !strings.Contains(source, fmt.Sprintf("message = %q", strings.TrimPrefix(method.Request, "checkup."))) {
			problems = append(problems, "gateway: strict.lua does not know "+method.Path)
		}
		if method.Public && method.Body != map[bool]string{true: "", false: "*"}[slices.Contains([]string{"GET", "DELETE"}, method.Verb)] {
			problems = append(problems, fmt.Sprintf("%s: its body in REST is %q", method.Path, method.Body))
		}
	}
	return append(problems, errorsInJSON(manager)...)
}

// errorsInJSON: what the gateway answers itself is a google.rpc.Status, whatever the HTTP status.
func errorsInJSON(manager *hcm.HttpConnectionManager) (problems []string) {
	mappers := manager.GetLocalReplyConfig().GetMappers()
	codes := map[float64]bool{}
	for _, mapper := range mappers {
		format := mapper.GetBodyFormatOverride().GetJsonFormat().GetFields()
		if format["message"].GetStringValue() != "%LOCAL_REPLY_BODY%" || format["details"].GetListValue() == nil {
			problems = append(problems, fmt.Sprintf("gateway: an error in JSON without a message or details: %v", format))
		}
		codes[format["code"].GetNumberValue()] = true
		if len(mapper.GetFilter().GetAndFilter().GetFilters()) < 2 {
			problems = append(problems, "gateway: a proxy's own answers to gRPC would be JSON too")
		}
	}
	for _, code := range []float64{3, 4, 5, 7, 8, 13, 14, 16} {
		if !codes[code] {
			problems = append(problems, fmt.Sprintf("gateway: no error of its own has the code %v", code))
		}
	}
	return problems
}
