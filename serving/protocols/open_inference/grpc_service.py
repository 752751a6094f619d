"""Registers the RPCs of `inference.proto` with a gRPC server."""

from typing import Any

import grpc
from google.protobuf.message_factory import GetMessageClass

from serving.protocols.open_inference.protos import inference_pb2 as pb

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]


def add_GRPCInferenceServiceServicer_to_server(servicer: Any, server: Any) -> None:
    """Add the service to a server; each RPC calls the method of `servicer` with its name.

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
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE.full_name, handlers),))
