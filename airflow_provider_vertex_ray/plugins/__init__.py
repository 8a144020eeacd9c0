"""The "Ray clusters" page in the user interface of Airflow 3."""
