"""Code that runs on the cluster for ``VertexRayBigQueryOperator``.

It is sent as a separate package, so it needs only the standard library, Ray, PyArrow and Google's BigQuery clients, and
uses relative imports. Airflow also uses ``jobs`` and ``names``.
"""
