"""Async clients of the services' REST APIs; no Airflow import, no ray import."""
