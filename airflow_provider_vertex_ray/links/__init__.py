"""Links beside a task in the Airflow UI."""
