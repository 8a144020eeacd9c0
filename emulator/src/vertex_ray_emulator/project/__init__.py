"""The emulated Google Cloud project: machine types, quotas, permissions and plans of nodes."""
