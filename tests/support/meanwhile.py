"""What happens beside a task that a test runs, as soon as the task has come to where it must happen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from emulator_support.process import until


@contextmanager
def meanwhile(then: Callable[[], object], *conditions: Callable[[], object]) -> Iterator[None]:
    """Wait beside the block until the conditions were true, in this order, then do something.

    :param then: what to do; it is also done if a condition does not come true, for the block may wait for it
    """

    def wait() -> None:
        try:
            for condition in conditions:
                until(condition)
        finally:
            then()

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(wait)
        yield
    done.result()
