"""What has been measured: one line a job, so that a study that stops goes on where it was."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from time import perf_counter
from typing import Any, Protocol

from strop.errors import StropError

Result = dict[str, Any]
FAILED = "failed"
"""Key of a result that is only a reason."""
SECONDS = "seconds"
"""Key of the time that a job took."""


class Job(Protocol):
    """A frozen dataclass of settings that decide its result."""

    def run(self) -> Result:
        """Measure; the result is JSON-able."""


def key(job: Any) -> str:
    """The settings of a job as one line of text, the same for equal jobs."""
    return json.dumps([type(job).__name__, asdict(job)], sort_keys=True)


@dataclass
class Ledger:
    """Results by job, in a file that only grows. A later line stands for an earlier one of the same job."""

    path: Path

    def __post_init__(self) -> None:
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        self._found: dict[str, Result] = {}
        for line in lines:
            job, result = json.loads(line)
            self._found[json.dumps(job, sort_keys=True)] = result

    def get(self, job: Any) -> Result | None:
        """The result of a job that was done."""
        result = self._found.get(key(job))
        return None if result is None or FAILED in result else result

    def reason(self, job: Any) -> str | None:
        """Why a job cannot be done."""
        return (self._found.get(key(job)) or {}).get(FAILED)

    def minutes(self) -> float:
        """How long all jobs take, one at a time; one whose time was not kept, as others of its kind and network."""
        times: dict[tuple[str, str, str], list[float | None]] = defaultdict(list)
        for job, result in self._found.items():
            kind, settings = json.loads(job)
            times[kind, settings["net"], str(settings.get("parts"))].append(result.get(SECONDS))
        known = ((len(group), [each for each in group if each is not None]) for group in times.values())
        return sum(count * mean(found) for count, found in known if found) / 60

    def add(self, job: Any, result: Result) -> None:
        """Keep a result."""
        self._found[key(job)] = result
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(f"[{key(job)}, {json.dumps(result)}]\n")


def done(job: Job) -> Result:
    """A job's result, or the sentence that says why there is none, and how long it took."""
    start = perf_counter()
    result = _tried(job)
    return {**result, SECONDS: round(perf_counter() - start, 2)}


def _tried(job: Job) -> Result:
    try:
        return job.run()
    except StropError as error:
        return {FAILED: str(error)}
    except Exception as error:  # a long study does not stop for one row
        return {FAILED: f"{type(error).__name__}: {error}"}


Work = Callable[[Iterable[Job]], Iterator[tuple[Job, Result]]]
"""Does jobs and gives their results, in any order."""


@contextmanager
def workers(number: int) -> Iterator[Work]:
    """Something that does jobs: in this process, or in several."""
    if number == 1:
        yield lambda jobs: ((job, done(job)) for job in jobs)
        return
    with ProcessPoolExecutor(number, get_context("spawn")) as pool:

        def each(jobs: Iterable[Job]) -> Iterator[tuple[Job, Result]]:
            waiting: dict[Future[Result], Job] = {pool.submit(done, job): job for job in jobs}
            return ((waiting[future], future.result()) for future in as_completed(waiting))

        yield each
