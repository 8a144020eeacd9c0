"""Run all benchmarks, one after the other (``make bench``): about sixteen minutes on two cores."""

from __future__ import annotations

import sys
import time

from benchmarks import (
    amortisation,
    bigquery_step,
    end_of_job,
    imports,
    large_answers,
    leases,
    many_waits,
    requests_per_job,
    typed_answers,
)
from benchmarks.import_time import import_meter
from benchmarks.report import print_figures


def main() -> int:
    """Run all benchmarks, print one table, and return 1 if a goal is missed."""
    begun = time.monotonic()
    print("Imports in fresh interpreters, alternating with the Google provider's ...", flush=True)
    with import_meter() as meter:
        figures = imports.run(meter)
    print("Status requests through the typed boundary ...", flush=True)
    figures += typed_answers.run()
    print("Large and hostile answers ...", flush=True)
    figures += large_answers.run()
    print("Requests of waiting jobs (a minute and a half) ...", flush=True)
    figures += requests_per_job.run()
    print("Delay after the end of jobs on a real Ray cluster (a minute and a half) ...", flush=True)
    figures += end_of_job.run()
    print("Twenty jobs on a shared cluster, and on separate clusters (five minutes) ...", flush=True)
    figures += amortisation.run()
    print("Leases in virtual time (two minutes) ...", flush=True)
    figures += leases.run()
    print("The BigQuery step, and a hand-written script (two minutes) ...", flush=True)
    figures += bigquery_step.run()
    print("A thousand waits in one process, in three ways (four minutes) ...", flush=True)
    figures += many_waits.run()
    print(f"Measured in {time.monotonic() - begun:.0f} s.\n")
    return print_figures(figures)


if __name__ == "__main__":
    sys.exit(main())
