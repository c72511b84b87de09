"""The Open Inference Protocol over HTTP (over gRPC: runtime/grpc)."""
