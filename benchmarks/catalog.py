"""The benchmarks of ``make bench``, in the order in which they run: the short ones first."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Benchmark:
    """One benchmark: the module ``benchmarks.<name>``, whose ``run()`` gives its figures as they are measured.

    :param name: name of the module, as in ``make bench BENCH="imports leases"``.
    :param title: what it measures.
    :param seconds: seconds that it takes on two cores.
    """

    name: str
    title: str
    seconds: int

    @property
    def limit(self) -> float:
        """Seconds after which it is ended: it hangs, or the machine is far too busy."""
        return 3.0 * self.seconds + 60.0


BENCHMARKS = (
    Benchmark("imports", "DAG-file imports in fresh interpreters", 45),
    Benchmark("worker_part", "What a task costs its worker's process", 75),
    Benchmark("typed_answers", "Status requests through the typed boundary", 15),
    Benchmark("large_answers", "Large and hostile answers", 30),
    Benchmark("submission", "Submissions, and a bare client's", 20),
    Benchmark("log_throughput", "A large log, and a bare client's download", 30),
    Benchmark("requests_per_job", "Requests and bytes of waiting jobs", 180),
    Benchmark("end_of_job", "From a job's end to its event, on a real Ray cluster", 100),
    Benchmark("short_jobs", "Short jobs in a real Airflow with two slots", 150),
    Benchmark("short_jobs_astro", "Short jobs in Airflow 2.11, beside the peers", 220),
    Benchmark("bigquery_step", "The BigQuery step, and a hand-written script", 190),
    Benchmark("leases", "3,000 leases, in virtual time", 40),
    Benchmark("amortisation", "Jobs on a shared cluster, and on separate clusters", 210),
    Benchmark("many_waits", "10 to 3,000 waits in one process", 490),
)


def chosen(names: list[str]) -> list[Benchmark]:
    """Return the benchmarks with these names, in the order of the catalog; all of them for an empty list.

    :raises ValueError: there is no such benchmark.
    """
    known = {each.name for each in BENCHMARKS}
    unknown = sorted(set(names) - known)
    if unknown:
        raise ValueError(
            f"There is no benchmark {', '.join(unknown)}. Use: {', '.join(each.name for each in BENCHMARKS)}."
        )
    return [each for each in BENCHMARKS if not names or each.name in names]
