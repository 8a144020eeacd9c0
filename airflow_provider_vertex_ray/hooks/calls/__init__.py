"""Calls over an Airflow connection, without the import of the Google provider's base hook, which is slow."""
