"""What runs on the cluster for ``VertexRayBigQueryOperator``.

It travels as a package of its own, so it lives on the standard library, Ray, PyArrow and Google's BigQuery clients, and
imports its neighbours by relative names only. Airflow's side uses ``jobs`` and ``names`` too.
"""
