"""Registers the RPCs of `inference.proto`, and the standard health check, with a gRPC server."""

from typing import Any

import grpc
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from serving.protocols.open_inference.protos import inference_pb2 as pb

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]

HEALTH_SERVICE = "grpc.health.v1.Health"
"""The standard health checking protocol (grpc.io/docs/guides/health-checking), of which Kubernetes calls `Check`. Its
messages have one field each, so they are encoded like `StringValue` and `Int32Value`. A `Watch` is UNIMPLEMENTED, which
tells clients to go without it: the proxy ends responses that send nothing for two seconds."""


def add_GRPCInferenceServiceServicer_to_server(servicer: Any, server: Any) -> None:
    """Add the services to a server; each RPC calls the method of `servicer` with its name.

    Ray Serve imports this function by its path, which `grpc_servicer_functions` of Serve's gRPC options holds.
    """
    handlers = {
        rpc.name: grpc.unary_unary_rpc_method_handler(
            getattr(servicer, rpc.name),
            request_deserializer=GetMessageClass(rpc.input_type).FromString,
            response_serializer=GetMessageClass(rpc.output_type).SerializeToString,
        )
        for rpc in SERVICE.methods
    }
    check = grpc.unary_unary_rpc_method_handler(
        servicer.Check, request_deserializer=StringValue.FromString, response_serializer=Int32Value.SerializeToString
    )
    # One call for each service, because Serve replaces only the first handler of a call by its own.
    for name, methods in ((SERVICE.full_name, handlers), (HEALTH_SERVICE, {"Check": check})):
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, methods),))
