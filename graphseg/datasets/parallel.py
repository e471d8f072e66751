"""Tasks over processes: Python's own executor on one machine, Dask's on a cluster. Nothing here schedules.

Worker processes are fresh ones (not forks of a process that runs threads), compute with one thread each, and end when
their parent does, however it ends.
"""

from __future__ import annotations

import importlib
import itertools
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

__all__ = ["check_sendable", "open_workers"]

Result = TypeVar("Result")
AHEAD = 4  # tasks under way for each worker: enough that none waits, few enough that results do not pile up
_DIED = "the process that worked on it was killed: not enough memory?"


class Workers:
    """Runs tasks on an executor, a few for each worker at a time.

    Args:
        executor: where to; None runs them here, one after the other.
        count: how many workers it has.
        restart: makes another executor, with so many workers, after one that broke.
        ready: the executor's first tasks, to tell whether it works at all.
    """

    def __init__(
        self,
        executor: Executor | None,
        count: int,
        restart: Callable[[int], Executor] | None = None,
        ready: Sequence[Future[int]] = (),
    ) -> None:
        self.executor = executor
        self.count = count
        self.restart = restart
        self.ready = ready

    def run(
        self, function: Callable[..., Result], tasks: Iterable[tuple[Any, ...]]
    ) -> Iterator[tuple[tuple[Any, ...], Result | str]]:
        """Yields every task with its result, as they come; with a reason where its worker was killed.

        Args:
            function: called with each task's arguments; it must not raise.
            tasks: taken as they can be worked on.
        """
        if self.executor is None:
            for task in tasks:
                yield task, function(*task)
            return
        running: dict[Future[Result], tuple[Any, ...]] = {}
        lost: list[tuple[Any, ...]] = []
        waiting = iter(tasks)
        while True:
            for task in itertools.islice(waiting, 0 if lost else AHEAD * self.count - len(running)):
                try:
                    running[self.executor.submit(function, *task)] = task
                except BrokenProcessPool:
                    lost.append(task)
            if not running and not lost:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done if running else ():
                task = running.pop(future)
                error = future.exception()
                if error is None:
                    yield task, future.result()
                elif isinstance(error, BrokenProcessPool):
                    lost.append(task)
                elif type(error).__name__ == "KilledWorker":  # Dask has tried it on several workers
                    yield task, _DIED
                else:
                    raise error
            if lost and not running:
                yield from self._one_by_one(function, lost)
                lost = []

    def _one_by_one(
        self, function: Callable[..., Result], tasks: list[tuple[Any, ...]]
    ) -> Iterator[tuple[tuple[Any, ...], Result | str]]:
        """One of these broke the executor: each alone, then on with a new one."""
        assert self.restart is not None
        if self.ready and all(future.done() and future.exception() is not None for future in self.ready):
            raise RuntimeError(
                "got worker processes that do not start (what they said is above), expected the build of a script "
                "below `if __name__ == '__main__':`, in a file; or workers=1"
            )
        self.executor = self.restart(1)
        for task in tasks:
            found: Result | str
            try:
                found = self.executor.submit(function, *task).result()
            except BrokenProcessPool:
                found = _DIED
                self.executor = self.restart(1)
            yield task, found
        self.executor = self.restart(self.count)


def open_workers(workers: int = 1, scheduler: str | None = None) -> AbstractContextManager[Workers]:
    """Workers for tasks, as a context.

    Args:
        workers: processes on this machine; 1 works in this very process.
        scheduler: address of a Dask scheduler, whose workers do the work instead.

    Raises:
        ImportError: for a scheduler without Dask.
        OSError: for a scheduler that does not answer.
    """
    return _cluster(scheduler) if scheduler is not None else _processes(workers)


def check_sendable(what: str, thing: object) -> None:
    """Raises TypeError for what cannot be sent to another process.

    Args:
        what: how the message calls it, "a transform that" say.
        thing: to be sent.
    """
    try:
        pickle.dumps(thing)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise TypeError(
            f"got {what} cannot be sent to other processes ({error}), expected importable functions "
            "instead of lambdas and local ones, or workers=1"
        ) from error


@contextmanager
def _processes(count: int) -> Iterator[Workers]:
    if count == 1:
        yield Workers(None, 1)
        return
    context = multiprocessing.get_context("spawn")
    started: list[ProcessPoolExecutor] = []

    def start(number: int) -> ProcessPoolExecutor:
        for old in started:
            old.shutdown(wait=True, cancel_futures=True)
        started[:] = [ProcessPoolExecutor(number, context, _prepare_worker)]
        with _without_interrupts():  # inherited: Ctrl-C reaches all, and the parent ends its workers
            ready[:] = [started[0].submit(os.getpid) for _ in range(number)]
        return started[0]

    ready: list[Future[int]] = []
    executor = start(count)  # they start, and import, while the first tasks are found
    try:
        yield Workers(executor, count, start, list(ready))
    finally:
        started[0].shutdown(wait=True, cancel_futures=True)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _prepare_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    import torch

    importlib.import_module("graphseg.transforms")  # before the first task
    torch.set_num_threads(1)


@contextmanager
def _cluster(address: str) -> Iterator[Workers]:
    try:
        from dask.distributed import Client
    except ImportError as error:
        raise ImportError('a scheduler needs Dask: pip install "graphseg[cluster]"') from error
    with Client(address, set_as_default=False) as client:
        threads = sum(client.nthreads().values())
        if threads == 0:
            print(f"waiting for a worker of {address}", file=sys.stderr)
            client.wait_for_workers(1)
            threads = sum(client.nthreads().values())
        yield Workers(client.get_executor(pure=False, retries=3), threads)
