"""The control plane of persistent resources: rules, quotas and the life of a cluster."""
