"""How to reach the services of checkup, and how to read why they refuse."""

import collections
import dataclasses
import json
import pathlib

import grpc
from checkup.error.v1 import error_pb2
from google.rpc import error_details_pb2
from grpc_status import rpc_status


def connect(address, token):
    """Opens a channel for one caller. The service config gives each call its deadline and says what is sent again."""
    config = json.loads(pathlib.Path("proto/service_config.json").read_text())
    # grpcio would keep a timeout of the config from the server, and end the call a second before: so it goes with each
    # call.
    timeouts = {}
    for entry in config["methodConfig"]:
        if timeout := entry.pop("timeout", None):
            timeouts |= {f"/{name['service']}/{name['method']}": float(timeout.rstrip("s")) for name in entry["name"]}
    # Without TLS, as `checkup up` serves it; for a gateway it is grpc.secure_channel, whose call credentials carry the
    # token.
    channel = grpc.insecure_channel(address, options=[("grpc.service_config", json.dumps(config))])
    return grpc.intercept_channel(channel, Caller(token, timeouts))


class Details(collections.namedtuple("Details", "method timeout metadata credentials wait_for_ready compression"), grpc.ClientCallDetails):
    """What an interceptor hands on."""


class Caller(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Sends a token and a deadline with each call."""

    def __init__(self, token, timeouts):
        self.token, self.timeouts = token, timeouts

    def _call(self, continuation, details, request):
        timeout = details.timeout or self.timeouts.get(details.method)
        metadata = [*(details.metadata or ()), ("authorization", f"Bearer {self.token}")]
        rest = (details.credentials, details.wait_for_ready, details.compression)
        return continuation(Details(details.method, timeout, metadata, *rest), request)

    intercept_unary_unary = intercept_unary_stream = _call


@dataclasses.dataclass
class Refusal:
    """Why a service of checkup refused a call, in a form to act on."""

    code: grpc.StatusCode
    # error_pb2.REASON_UNSPECIFIED where the stubs are older than the reason: then the code alone decides.
    reason: int
    metadata: dict[str, str]

    def __str__(self):
        values = [f"{key}={value}" for key, value in sorted(self.metadata.items())]
        return " ".join([self.code.name, error_pb2.Reason.Name(self.reason), *values])


def refused(error):
    """Takes an error apart; None where no service of checkup made it, as when nobody could be reached."""
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info) and info.domain == "checkup":
            reason = error_pb2.Reason.Value(info.reason) if info.reason in error_pb2.Reason.keys() else error_pb2.REASON_UNSPECIFIED
            return Refusal(error.code(), reason, dict(info.metadata))
    return None
