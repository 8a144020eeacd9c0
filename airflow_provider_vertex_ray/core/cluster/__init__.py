"""Clusters: names, specifications, resource pools, state, and the client of the PersistentResource API."""
