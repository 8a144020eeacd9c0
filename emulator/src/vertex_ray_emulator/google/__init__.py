"""The other Google Cloud APIs that clients of a cluster need."""
