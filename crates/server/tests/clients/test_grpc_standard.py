"""gRPC's own clients: `grpcio-health-checking`, and `grpcio-reflection` as grpcurl and its like use it; over TCP and a Unix socket."""

import http.client
import json
import socket

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from common import DATA, SOCKET, equal, main, refused, true

channel = grpc.insecure_channel(DATA)
health = health_pb2_grpc.HealthStub(channel)
SERVING = health_pb2.HealthCheckResponse.SERVING
SERVICES = {
    "inference.GRPCInferenceService", "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService",
    "org.pytorch.serve.grpc.inference.InferenceAPIsService", "grpc.health.v1.Health",
}


def test_health_check():
    for service in ("", "inference.GRPCInferenceService", "tensorflow.serving.PredictionService"):
        equal(health.Check(health_pb2.HealthCheckRequest(service=service)).status, SERVING, service)
    error = refused(grpc.RpcError, lambda: health.Check(health_pb2.HealthCheckRequest(service="nothing")))
    equal(error.code(), grpc.StatusCode.NOT_FOUND)


def test_health_watch():
    watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=20)
    equal(next(watch).status, SERVING)
    watch.cancel()
    unknown = health.Watch(health_pb2.HealthCheckRequest(service="nothing"), timeout=20)
    equal(next(unknown).status, health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
    unknown.cancel()


def test_reflection():
    database = ProtoReflectionDescriptorDatabase(channel)
    services = set(database.get_services())
    true(SERVICES <= services, services)
    pool = DescriptorPool(database)
    for name in SERVICES:
        true(pool.FindServiceByName(name).methods, name)
    # A call made of nothing but what reflection told.
    method = pool.FindServiceByName("inference.GRPCInferenceService").FindMethodByName("ServerMetadata")
    request, answer = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    call = channel.unary_unary("/inference.GRPCInferenceService/ServerMetadata", request.SerializeToString, answer.FromString)
    equal(call(request()).name, "millrace")


def test_unix_socket():
    # Left alone, this client sends the path as `:authority`, which is none by HTTP's grammar: the `h2` crate resets such
    # streams before anybody sees them.
    over_socket = grpc.insecure_channel(f"unix:{SOCKET}", [("grpc.default_authority", "localhost")])
    equal(health_pb2_grpc.HealthStub(over_socket).Check(health_pb2.HealthCheckRequest()).status, SERVING)
    plain = http.client.HTTPConnection("localhost")
    plain.sock = socket.socket(socket.AF_UNIX)
    plain.sock.connect(SOCKET)
    plain.request("POST", "/v1/models/half_plus_two:predict", '{"instances": [1.0]}')
    equal(json.loads(plain.getresponse().read()), {"predictions": [3.5]})


def test_unknown_methods_and_services():
    for path in ("/inference.GRPCInferenceService/Nothing", "/nothing.Service/Method"):
        error = refused(grpc.RpcError, lambda: channel.unary_unary(path)(b""))
        equal(error.code(), grpc.StatusCode.UNIMPLEMENTED, path)


main(globals())
