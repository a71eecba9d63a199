#!/usr/bin/env python3
"""Stands between a client and checkup, and loses the answers to the first tries of every call: what was done is done, and the client hears UNAVAILABLE.

    faults.py ADDRESS TRIES        needs grpcio; TRIES: how many answers to a call are lost

Prints the address it listens on, then a JSON object a line for each try it sees: method, seconds until its deadline (null: none), and a hash of
the request, by which tries of one call are told from other calls. It ends with its standard input.
"""

import collections
import hashlib
import json
import sys
import threading
from concurrent import futures

import grpc

STREAMS = {"/checkup.mypage.v1.MyPageService/WatchMyPage"}


class Proxy(grpc.GenericRpcHandler):
    def __init__(self, channel, tries):
        self.channel, self.tries = channel, tries
        self.seen, self.lock = collections.Counter(), threading.Lock()

    def service(self, details):
        method, metadata = details.method, details.invocation_metadata
        if method in STREAMS:
            return grpc.unary_stream_rpc_method_handler(lambda request, context: self.stream(method, metadata, request, context))
        return grpc.unary_unary_rpc_method_handler(lambda request, context: self.unary(method, metadata, request, context))

    def lost(self, method, request, context):
        """Tells of a try, and whether its answer is to be lost."""
        digest = hashlib.sha256(request).hexdigest()
        with self.lock:
            self.seen[method, digest] += 1
            print(json.dumps({"method": method.lstrip("/"), "seconds": remaining(context), "request": digest}), flush=True)
            return self.seen[method, digest] <= self.tries

    def unary(self, method, metadata, request, context):
        lost = self.lost(method, request, context)
        try:
            answer = self.channel.unary_unary(method)(request, timeout=remaining(context), metadata=passed(metadata))
        except grpc.RpcError as error:
            if not lost:
                end(error, context)
        if lost:
            context.abort(grpc.StatusCode.UNAVAILABLE, "the answer is lost")
        return answer

    def stream(self, method, metadata, request, context):
        if self.lost(method, request, context):
            context.abort(grpc.StatusCode.UNAVAILABLE, "the answer is lost")
        call = self.channel.unary_stream(method)(request, timeout=remaining(context), metadata=passed(metadata))
        context.add_callback(call.cancel)
        try:
            yield from call
        except grpc.RpcError as error:
            end(error, context)


def remaining(context):
    """Seconds until the deadline of a call. Where it has none, gRPC says so by hundreds of years."""
    seconds = context.time_remaining()
    return seconds if seconds is not None and seconds < 1e9 else None


def passed(metadata):
    return [(key, value) for key, value in metadata if key == "authorization"]


def end(error, context):
    """Ends a call as the service behind has ended it."""
    context.set_trailing_metadata(error.trailing_metadata() or ())
    context.abort(error.code(), error.details())


def main(address, tries):
    server = grpc.server(futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers([Proxy(grpc.insecure_channel(address), int(tries))])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"127.0.0.1:{port}", flush=True)
    sys.stdin.read()
    server.stop(None)


if __name__ == "__main__":
    main(*sys.argv[1:])
