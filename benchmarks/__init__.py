"""Benchmarks of what the package promises, each beside a floor or a peer. ``python -m benchmarks`` runs all."""
