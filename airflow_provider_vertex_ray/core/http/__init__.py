"""The only door to the network: transport, authentication, addresses and typed service errors."""
