"""The Open Inference Protocol v2 over gRPC, beside HTTP on the same event loop and the same model lanes (extra ``[grpc]``)."""
