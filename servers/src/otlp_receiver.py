"""A receiver of OTLP over HTTP: says "ready PORT", then each span that it takes as a line of JSON.

The messages are decoded by OpenTelemetry's own definitions. What is no such message is answered with 400, and said, too.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import SimpleQueue
from threading import Thread

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

# Whoever reads slowly holds up nobody who sends.
SAID = SimpleQueue()


def say(what):
    SAID.put(json.dumps(what) if isinstance(what, dict) else what)


def print_all():
    while True:
        print(SAID.get(), flush=True)


def value_of(value):
    kind = value.WhichOneof("value")
    return getattr(value, kind) if kind in ("string_value", "bool_value", "int_value", "double_value") else str(value)


def attributes_of(attributes):
    return {attribute.key: value_of(attribute.value) for attribute in attributes}


def shown(span, resource):
    return {
        "trace": span.trace_id.hex(),
        "id": span.span_id.hex(),
        "parent": span.parent_span_id.hex() or None,
        "state": span.trace_state,
        "name": span.name,
        "kind": Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        "status": Status.StatusCode.Name(span.status.code).removeprefix("STATUS_CODE_").lower(),
        "message": span.status.message,
        "begun_ns": span.start_time_unix_nano,
        "ended_ns": span.end_time_unix_nano,
        "events": len(span.events),
        "links": [link.trace_id.hex() for link in span.links],
        "attributes": attributes_of(span.attributes),
        "resource": resource,
    }


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        request = ExportTraceServiceRequest()
        try:
            is_ours = self.path == "/v1/traces" and self.headers.get_content_type() == "application/x-protobuf"
            if not is_ours:
                raise DecodeError(f"{self.path} {self.headers.get_content_type()}")
            request.ParseFromString(body)
        except DecodeError as error:
            say({"error": str(error)})
            return self.answer(400, b"")
        for of_resource in request.resource_spans:
            resource = attributes_of(of_resource.resource.attributes)
            for of_scope in of_resource.scope_spans:
                for span in of_scope.spans:
                    say(shown(span, resource) | {"authorization": self.headers.get("authorization")})
        return self.answer(200, ExportTraceServiceResponse().SerializeToString())

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver)
server.daemon_threads = True
Thread(target=print_all, daemon=True).start()
say(f"ready {server.server_port}")
server.serve_forever()
