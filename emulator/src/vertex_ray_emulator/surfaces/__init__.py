"""The addresses that clients connect to: REST, gRPC, the dashboard proxy, tokens and TLS."""
