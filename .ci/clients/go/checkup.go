package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	errorv1 "checkup.example/stubs/checkup/error/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// connect opens a channel for one caller. The service config gives each call its deadline and says what is sent again.
func connect(address, token string) (*grpc.ClientConn, error) {
	config, err := os.ReadFile("proto/service_config.json")
	if err != nil {
		return nil, err
	}
	return grpc.NewClient(address,
		// Without TLS, as `checkup up` serves it; a gateway wants credentials.NewTLS.
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(string(config)),
		grpc.WithPerRPCCredentials(bearer(token)))
}

// bearer is a token that goes with each call.
type bearer string

func (token bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(token)}, nil
}

func (bearer) RequireTransportSecurity() bool { return false }

// refusal is why a service of checkup refused a call, in a form to act on.
type refusal struct {
	Code codes.Code
	// Reason is REASON_UNSPECIFIED where the stubs are older than the reason: then Code alone decides.
	Reason   errorv1.Reason
	Metadata map[string]string
}

func (r refusal) String() string {
	words := []string{r.Code.String(), r.Reason.String()}
	for _, key := range slices.Sorted(maps.Keys(r.Metadata)) {
		words = append(words, key+"="+r.Metadata[key])
	}
	return strings.Join(words, " ")
}

// refused takes an error apart; false where no service of checkup made it, as when nobody could be reached.
func refused(err error) (refusal, bool) {
	answered := status.Convert(err)
	for _, detail := range answered.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == "checkup" {
			reason := errorv1.Reason(errorv1.Reason_value[info.GetReason()])
			return refusal{answered.Code(), reason, info.GetMetadata()}, true
		}
	}
	return refusal{}, false
}

// explain puts an error into one line for a person.
func explain(err error) string {
	var answered interface{ GRPCStatus() *status.Status }
	if !errors.As(err, &answered) {
		return err.Error()
	}
	if why, ok := refused(err); ok {
		return fmt.Sprintf("%s: %s", why, status.Convert(err).Message())
	}
	return fmt.Sprintf("%s: %s", status.Code(err), status.Convert(err).Message())
}
