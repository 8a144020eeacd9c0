"""Ray job: primes or twin primes in one shard of [0, limit). It runs on the cluster, not in Airflow.

The first round (``count``) sieves the shard with Ray tasks on the worker nodes and leaves the sieve with an actor
that stays on the cluster after the job. The second round (``twins``) finds it there: nothing is sieved again, no
worker process is started. It is what a loaded model or an index is in other jobs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from typing import Any

import ray  # noqa: TID253 - it runs on the cluster, where Ray is

NAMESPACE = "primes"
CACHES = 2
PIECES = 2


def small_primes(limit: int) -> list[int]:
    """Return the primes up to and including ``limit``."""
    is_prime = bytearray([1]) * (limit + 1)
    is_prime[:2] = bytes(2)
    for n in range(2, math.isqrt(limit) + 1):
        if is_prime[n]:
            is_prime[n * n :: n] = bytes(len(range(n * n, limit + 1, n)))
    return [n for n, prime in enumerate(is_prime) if prime]


def sieve(low: int, high: int) -> bytes:
    """One byte for each odd number of [low, high), low being even: 1 for a prime. The prime 2 has no byte."""
    size = (high - low) // 2
    is_prime = bytearray([1]) * size
    for p in small_primes(math.isqrt(high))[1:]:
        first = max(p * p, (low // p + 1) * p)
        first += p if first % 2 == 0 else 0
        start = (first - low) // 2
        if start < size:
            is_prime[start::p] = bytes(len(range(start, size, p)))
    if low == 0:
        is_prime[0] = 0  # the number 1
    return bytes(is_prime)


def count_twins(is_prime: bytes) -> int:
    """Pairs of neighbouring odd numbers that are both prime."""
    bits = int.from_bytes(is_prime, "little")
    return (bits & (bits >> 8)).bit_count()


@ray.remote(num_cpus=0)
class SieveCache:
    """Keeps sieves in the memory of a worker node, for as long as the cluster lives."""

    def __init__(self) -> None:
        self.sieves: dict[tuple[int, int], bytes] = {}

    def keep(self, low: int, high: int, is_prime: bytes) -> None:
        """Keep the sieve of [low, high)."""
        self.sieves[low, high] = is_prime

    def twins(self, low: int, high: int) -> int | None:
        """Twin primes in [low, high), by the kept sieve; None when it is not here."""
        is_prime = self.sieves.get((low, high))
        return None if is_prime is None else count_twins(is_prime)


@ray.remote(num_cpus=1, num_returns=2)  # type: ignore[untyped-decorator]
def sieve_piece(low: int, high: int) -> tuple[int, bytes]:
    """Count the primes of [low, high); the sieve reaches two further, for a twin across the border."""
    is_prime = sieve(low, high + 2)
    return sum(is_prime) - is_prime[-1], is_prime


def cache_of(shard: int) -> Any:
    """Return the actor that caches a shard, found by its name; the first job creates it."""
    name = f"sieve-cache-{shard % CACHES}"
    return SieveCache.options(  # type: ignore[attr-defined]
        name=name, namespace=NAMESPACE, lifetime="detached", get_if_exists=True
    ).remote()


def run(kind: str, limit: int, shard: int, shards: int) -> dict[str, Any]:
    """Work on one shard and say what came out, and how much of it was in the cache."""
    ray.init()
    begun = time.perf_counter()
    edges = [2 * (limit * (shard * PIECES + k) // (shards * PIECES) // 2) for k in range(PIECES)]
    edges.append(2 * (limit * (shard + 1) // shards // 2))
    pieces = list(itertools.pairwise(edges))
    cache = cache_of(shard)
    found: list[int | None] = [None] * PIECES
    if kind == "twins":
        found = ray.get([cache.twins.remote(*piece) for piece in pieces])
    hits = PIECES - found.count(None)
    if kind == "count" or hits < PIECES:
        found = []
        kept = []
        for piece in pieces:
            count, is_prime = sieve_piece.remote(*piece)
            # Only references pass through here; the sieve goes straight from node to node.
            kept.append(cache.keep.remote(*piece, is_prime))
            found.append(count if kind == "count" else cache.twins.remote(*piece))
        ray.get(kept)
        found = ray.get(found)
    total = sum(int(n) for n in found if n is not None)
    # The prime 2, which the sieves of odd numbers leave out.
    total += 1 if kind == "count" and shard == 0 and limit > 2 else 0
    return {
        "kind": kind,
        "shard": shard,
        "low": edges[0],
        "high": edges[-1],
        "found": total,
        "pieces": PIECES,
        "from_cache": hits,
        "seconds": round(time.perf_counter() - begun, 4),
    }


def main() -> None:
    """Read the arguments, work, and hand the result to Airflow by a marked last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["count", "twins"])
    parser.add_argument("--limit", type=int, required=True)
    parser.add_argument("--shard", type=int, required=True)
    parser.add_argument("--shards", type=int, required=True)
    arguments = parser.parse_args()
    result = run(arguments.kind, arguments.limit, arguments.shard, arguments.shards)
    print("VERTEX_RAY_RESULT " + json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
