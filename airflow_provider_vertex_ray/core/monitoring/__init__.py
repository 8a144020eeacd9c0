"""Queries of Cloud Logging and Cloud Monitoring, and what their answers mean."""
