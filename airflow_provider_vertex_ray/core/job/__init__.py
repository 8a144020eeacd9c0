"""Ray jobs: state, inputs, packages, submission, logs, and the client of the Jobs API."""
