"""Features over gRPC: the service as it is published (`features.proto`), what protoc made of it, and the answers."""
