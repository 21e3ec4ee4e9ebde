"""Where the steps of a run are done: in threads of this process, or on a Dask cluster. The results are the same."""

from __future__ import annotations

import atexit
import copy
import logging
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import torch
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.tasks import Task
from prefect.utilities.timeout import timeout
from threadpoolctl import threadpool_limits

from configs import Settings, SettingsError, Workspace
from configs.schema import ComputeSettings

if TYPE_CHECKING:
    from distributed import Client
    from prefect_dask.task_runners import DaskTaskRunner

log = logging.getLogger(__name__)
RETRY_DELAYS = [2.0, 10.0, 60.0]  # seconds
CONNECT_SECONDS = 10.0
MOST_WAITING = 64  # batches that are with the cluster at once
LOOPBACK = "127.0.0.1"
# Processes of this machine that only this run uses: nothing listens beyond it, and no page is served.
QUIET = {
    "distributed.admin.system-monitor.gil.enabled": False,
    "distributed.logging": {"distributed": "error", "bokeh": "error", "tornado": "error"},
    "distributed.scheduler.worker-saturation": 1.0,  # nothing waits on a worker that may die of something else
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
}


_open = ExitStack()  # the cluster that this process uses
atexit.register(_open.close)


class ClusterError(ConnectionError):
    """The Dask cluster cannot be used."""


def for_each(
    step: Task[..., Any],
    parameters: Sequence[dict[str, Any]],
    settings: Settings,
    on_failure: Callable[[dict[str, Any], Exception], Any],
    on_done: Callable[[Any], None] | None = None,
) -> list[Any]:
    """Run a step for each set of parameters, some side by side, with the retries and the time limit of the settings.

    One that fails in spite of its retries does not stop the others, unless it is the machine that fails.

    Args:
        step: One of the steps of `tasks.steps`.
        parameters: What it is called with: settings and paths, no arrays, as they may travel to another machine.
        settings: Where, how many side by side, how often again, how long at most.
        on_failure: Called with the parameters and the failure of one; gives its result.
        on_done: Called with each result, in order.

    Returns:
        The results, in order.

    Raises:
        OSError: A disk that is full or read-only, a file that cannot be written: no fault of one scene.
        ClusterError: There is no cluster at `compute.dask_address`, or it has no workers.
        SettingsError: `compute.engine` is dask, and Dask is not installed.
    """
    outcomes = _on_cluster if settings.compute.engine == "dask" else _in_threads
    results = []
    for one, result in zip(parameters, outcomes(step, parameters, settings), strict=True):
        if isinstance(result, OSError) and not isinstance(result, TimeoutError):
            raise result
        if isinstance(result, Exception):
            log.error("%s failed", step.name, exc_info=result)
            result = on_failure(one, result)
        results.append(result)
        if on_done:
            on_done(results[-1])
    return results


def limit_threads(settings: Settings) -> None:
    """Let one operation of the network use no more threads than the settings allow, and one of numpy's but one.

    Numpy's matrices are narrow here: several threads wait for each other, five times as long on a busy machine, and
    scenes are handled side by side as it is.
    """
    threadpool_limits(1, user_api="blas")
    if settings.compute.threads is not None:
        torch.set_num_threads(settings.compute.threads)


def _in_threads(step: Task[..., Any], parameters: Sequence[dict[str, Any]], settings: Settings) -> Iterator[Any]:
    """The result or the failure of each, in order."""
    compute = settings.compute
    limited = step.with_options(
        retries=compute.retries,
        retry_delay_seconds=RETRY_DELAYS[: max(1, compute.retries)],
        timeout_seconds=compute.scene_timeout,
    )
    runner: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(max_workers=compute.workers)
    with runner:
        futures = [runner.submit(limited, parameters=one) for one in parameters]
        for future in futures:
            yield future.result(raise_on_failure=False)


def _on_cluster(step: Task[..., Any], parameters: Sequence[dict[str, Any]], settings: Settings) -> Iterator[Any]:
    """The same on a cluster, a batch a task. What was on a worker that died is done again on another one.

    The Prefect tasks stay in this process and wait for the workers, which so need neither a Prefect server nor its
    password, only this package and the workspace.
    """
    if not parameters:
        return
    client, size = cluster(settings.compute).client, settings.compute.batch
    calls = [partial(step.fn, **one) for one in parameters]
    batches = [calls[start : start + size] for start in range(0, len(calls), size)]
    named = run_batch.with_options(name=f"{step.name} batch")
    runner: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(max_workers=min(len(batches), MOST_WAITING))
    with runner:
        futures = [runner.submit(named, parameters={"batch": Batch(client, one, settings)}) for one in batches]
        for future in futures:
            yield from future.result()


class Batch:
    """Some calls for a cluster. Opaque, so that Prefect does not search settings and paths for futures."""

    def __init__(self, client: Client, calls: Sequence[partial[Any]], settings: Settings) -> None:
        self.client, self.calls, self.settings = client, calls, settings

    def done(self, last: bool = False) -> list[Any]:
        """The result or the failure of each call, in order.

        A batch that takes its workers down again and again is done call by call, so that only the guilty one is lost.
        One that was only waiting on the same worker gets another chance, unless this is the last.
        """
        from distributed import KilledWorker

        future = self.client.submit(work_off, self.calls, self.settings, pure=False)
        try:
            done: list[Any] = future.result()
            return done
        except KilledWorker as error:
            if last:
                return [RuntimeError(f"its workers died of it: {error}")]
            alone = [Batch(self.client, [one], self.settings) for one in self.calls]
            return [result for one in alone for result in one.done(last=len(alone) == 1)]
        except CancelledError as error:
            raise ClusterError(f"the Dask scheduler went away: {error}") from None
        finally:
            future.cancel()  # when this process is stopped; nothing happens to one that is done


@task(
    name="batch", task_run_name="{batch.calls[0].func.__name__} and more", cache_policy=NO_CACHE, persist_result=False
)
def run_batch(batch: Batch) -> list[Any]:
    """Have a batch done on the cluster: the result or the failure of each call, in order."""
    return batch.done()


def work_off(calls: Sequence[partial[Any]], settings: Settings) -> list[Any]:
    """Do a batch; this runs on a worker. The result or the failure of each call, in order."""
    limit_threads(settings)
    return [_attempt(call, settings.compute) for call in calls]


def _attempt(call: partial[Any], compute: ComputeSettings) -> Any:
    """The result of a call or its last failure, with the retries and the time limit that Prefect gives a task here."""
    workspace = call.keywords.get("workspace")
    if isinstance(workspace, Workspace) and not workspace.root.is_dir():
        return ClusterError(
            f"the worker on {socket.gethostname()} does not see the workspace {workspace.root}: all machines of a "
            "cluster need it under the same path, on a shared file system"
        )
    for trial in range(compute.retries + 1):
        try:
            with timeout(seconds=compute.scene_timeout):
                return call()
        except Exception as error:
            if trial == compute.retries:
                return _portable(error)
            log.warning("%s failed and is tried again: %s", call.func.__name__, error)
            time.sleep(RETRY_DELAYS[min(trial, len(RETRY_DELAYS) - 1)])
    raise AssertionError("compute.retries is never negative")


def _portable(error: Exception) -> Exception:
    """A failure as it can be sent to the process that asked; some do not survive it."""
    try:
        copy.copy(error)  # made anew from its arguments, as it is on arrival
    except Exception:
        kind = OSError if isinstance(error, OSError) else RuntimeError
        return kind(f"{type(error).__name__}: {error}")
    return error


@lru_cache(maxsize=1)
def cluster(compute: ComputeSettings) -> DaskTaskRunner:
    """The cluster of the settings, kept for this process: connected to, or started with processes of this machine.

    Raises:
        SettingsError: Dask is not installed.
        ClusterError: It does not answer, or has no workers.
    """
    try:
        import dask
        from prefect_dask.task_runners import DaskTaskRunner
    except ImportError:
        raise SettingsError("compute.engine is dask, which needs: pip install 'tilewatch[cluster]'") from None
    dask.config.set(QUIET)
    address = compute.dask_address
    if address:
        runner = DaskTaskRunner(address=address, client_kwargs={"timeout": CONNECT_SECONDS})
    else:
        runner = DaskTaskRunner(
            cluster_kwargs={
                "n_workers": compute.workers,
                "threads_per_worker": 1,
                "processes": True,
                "host": LOOPBACK,
                "dashboard_address": None,
                "memory_limit": None,
            }
        )
    logging.getLogger("prefect.task_runner.dask").setLevel(logging.WARNING)
    stack = ExitStack()
    try:
        stack.enter_context(runner)
        client = runner.client
        if not client.scheduler_info(n_workers=-1)["workers"]:
            log.warning("waiting for the first worker of the cluster at %s", address)
            client.wait_for_workers(1, timeout=compute.scene_timeout)
    except (OSError, TimeoutError) as error:
        stack.close()
        raise ClusterError(
            f"compute.dask_address = {address!r}: no scheduler with workers answers there ({error}). "
            "Start one, or set compute.engine to local"
        ) from None
    _open.enter_context(stack.pop_all())
    return runner


def leave() -> None:
    """Disconnect from the cluster, and end the one that was started here; the end of the process does so as well."""
    cluster.cache_clear()
    _open.close()
