"""A gRPC client of the Open Inference Protocol."""

import grpc
from google.protobuf.message_factory import GetMessageClass

from serving.protocols.open_inference.grpc_service import SERVICE

SERVING = b"\x08\x01"
"""HealthCheckResponse(status=SERVING) of the standard health check."""


class Stub:
    """Has a method per RPC, which takes the request, and options of the call such as `timeout` and `metadata`."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel
        for rpc in SERVICE.methods:
            call = channel.unary_unary(
                f"/{SERVICE.full_name}/{rpc.name}",
                request_serializer=GetMessageClass(rpc.input_type).SerializeToString,
                response_deserializer=GetMessageClass(rpc.output_type).FromString,
            )
            setattr(self, rpc.name, call)


def check_health(channel: grpc.Channel, service: bytes = b"") -> bytes:
    """Call the standard health check as `grpc_health_probe` and Kubernetes do, on the level of bytes."""
    asked = b"\n%c%s" % (len(service), service) if service else b""
    return bytes(channel.unary_unary("/grpc.health.v1.Health/Check")(asked, timeout=10))
