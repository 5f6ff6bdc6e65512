"""A TLS gRPC server made from the Vertex client library's own service definitions.

The generated transports say what each method is called on the wire and how its messages are encoded; nothing of that is
written down here. A service is a plain object whose methods are named as the client's are, as in
`create_pipeline_job(request)`; a method that it lacks answers UNIMPLEMENTED, as a real server's would.
"""

import threading
from collections.abc import Callable
from concurrent import futures
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.auth.credentials import AnonymousCredentials
from google.cloud.aiplatform_v1.services.job_service.transports import JobServiceGrpcTransport
from google.cloud.aiplatform_v1.services.metadata_service.transports import MetadataServiceGrpcTransport
from google.cloud.aiplatform_v1.services.model_service.transports import ModelServiceGrpcTransport
from google.cloud.aiplatform_v1.services.pipeline_service.transports import PipelineServiceGrpcTransport
from google.cloud.aiplatform_v1.services.schedule_service.transports import ScheduleServiceGrpcTransport
from google.longrunning import operations_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

TRANSPORTS = (
    PipelineServiceGrpcTransport,
    JobServiceGrpcTransport,
    ModelServiceGrpcTransport,
    ScheduleServiceGrpcTransport,
    MetadataServiceGrpcTransport,
)


class ApiError(Exception):
    """An answer other than OK."""

    def __init__(self, code: grpc.StatusCode, message: str, reason: str = "", **metadata: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason
        self.metadata = metadata

    def status(self) -> status_pb2.Status:
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        if self.reason:
            info = error_details_pb2.ErrorInfo(reason=self.reason, domain="googleapis.com", metadata=self.metadata)
            status.details.add().Pack(info)
        return status


@dataclass(frozen=True)
class Method:
    """One method of a service: its path on the wire, its Python name, and how to read a request."""

    path: str
    name: str
    read: Callable[[bytes], Any]


class _Recorder(grpc.Channel):
    """A channel that calls nobody and notes what a transport would call."""

    def __init__(self) -> None:
        self.path = ""
        self.encode: Any = None

    def unary_unary(self, method: str, request_serializer: Any = None, *_: Any, **__: Any) -> Any:
        self.path, self.encode = method, request_serializer
        return lambda *_, **__: None

    def unary_stream(self, *_: Any, **__: Any) -> Any:
        return lambda *_, **__: None

    stream_unary = stream_stream = unary_stream

    def subscribe(self, *_: Any, **__: Any) -> None: ...
    def unsubscribe(self, *_: Any) -> None: ...
    def close(self) -> None: ...
    def __enter__(self) -> Any: ...
    def __exit__(self, *_: Any) -> Any: ...


def methods_of(transport_class: type) -> list[Method]:
    """Reads all methods from a generated transport."""
    channel = _Recorder()
    transport = transport_class(channel=channel, credentials=AnonymousCredentials())
    transport._stubs.clear()
    transport._logged_channel = channel  # without the interceptor, which defers the call
    methods = []
    for name in [name for name in vars(transport_class) if isinstance(vars(transport_class)[name], property)]:
        channel.path = ""
        getattr(transport, name)
        owner = getattr(channel.encode, "__self__", None)
        if channel.path.startswith("/google.cloud.aiplatform") and hasattr(owner, "deserialize"):
            methods.append(Method(channel.path, name, owner.deserialize))
    assert methods, transport_class
    return methods


class VertexServer:
    """Serves services over TLS on loopback until it is stopped.

    Attributes:
        endpoint: "localhost:<port>", what the client takes as its api_endpoint.
        calls: The names of the methods called, in order.
        failures: Answers to give instead of the real ones, by method name; each is used up once.
    """

    def __init__(self, services: Any, certificate: Path, key: Path) -> None:
        self.calls: list[str] = []
        self.failures: dict[str, list[ApiError]] = {}
        self._services = services
        self._lock = threading.RLock()
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        for transport in TRANSPORTS:
            methods = methods_of(transport)
            service = methods[0].path.split("/")[1]
            handlers = {method.path.split("/")[2]: self._handler(method) for method in methods}
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        get_operation = Method("", "get_operation", operations_pb2.GetOperationRequest.FromString)
        operations = {"GetOperation": self._handler(get_operation)}
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("google.longrunning.Operations", operations),)
        )
        credentials = grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
        self.endpoint = f"localhost:{self._server.add_secure_port('localhost:0', credentials)}"
        self._server.start()

    def reset(self, services: Any) -> None:
        """Forgets everything and serves other objects."""
        with self._lock:
            self._services, self.calls, self.failures = services, [], {}

    def stop(self) -> None:
        self._server.stop(None).wait()

    def _handler(self, method: Method) -> grpc.RpcMethodHandler:
        def serve(request: Any, context: grpc.ServicerContext) -> Any:
            with self._lock:
                self.calls.append(method.name)
                try:
                    return self._answer(method, request, dict(context.invocation_metadata()))
                except ApiError as error:
                    context.abort_with_status(rpc_status.to_status(error.status()))

        return grpc.unary_unary_rpc_method_handler(serve, method.read, _encode)

    def _answer(self, method: Method, request: Any, metadata: dict[str, Any]) -> Any:
        if not str(metadata.get("authorization", "")).startswith("Bearer "):
            raise ApiError(
                grpc.StatusCode.UNAUTHENTICATED,
                "Request is missing required authentication credential. Expected OAuth 2 access token, login cookie "
                "or other valid authentication credential.",
            )
        if self.failures.get(method.name):
            raise self.failures[method.name].pop(0)
        implementation = getattr(self._services, method.name, None)
        if implementation is None:
            raise ApiError(grpc.StatusCode.UNIMPLEMENTED, f"{method.path} is not implemented by this server.")
        return implementation(request)


def _encode(message: Any) -> bytes:
    if hasattr(type(message), "serialize"):
        return type(message).serialize(message)
    return message.SerializeToString()
