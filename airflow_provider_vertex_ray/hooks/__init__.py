"""Hooks: the Airflow connection's credentials, project and region for the API clients in ``core``."""
