"""The Ray clusters page of the Airflow UI."""
