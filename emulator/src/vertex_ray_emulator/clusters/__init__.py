"""Control plane of persistent resources: rules, quotas and the lifecycle of clusters."""
