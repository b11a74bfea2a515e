"""``aiostorage demo``: a real search by many workers in several processes, on one storage."""

from __future__ import annotations

import re
import shlex
from functools import partial
from typing import Final

import anyio
import click
from click.core import ParameterSource

from aiostorage._core.named_store import named_store
from aiostorage.cli.demo.display import display_on
from aiostorage.cli.demo.problem import ProblemSpec
from aiostorage.cli.demo.report import DemoReport
from aiostorage.cli.demo.run import DemoRun, DemoSettings, RunFailed, StoppedBySignal
from aiostorage.cli.options import DEBUG_KEY, debug_option
from aiostorage.cli.terminal import Terminal, echo
from aiostorage.cli.text import plural
from aiostorage.trial import TrialStatus

__all__ = ["demo"]

_SECRET_OPTION: Final = re.compile(
    r"([?&][^=&]*(?:password|secret|token|properties)[^=&]*=)[^&]*", re.IGNORECASE
)
"""An option of a URL whose value is not to be shown."""

EPILOG = """\b
Examples:
  aiostorage demo
  aiostorage demo --kill --workers 3
  aiostorage demo --objective mymodule:loss --space "lr=1e-5:1e-1" \\
      --space layers=1:8 --space optimizer=sgd,adam --trials 200
"""


@click.command(epilog=EPILOG)
@click.option(
    "--url",
    help="The storage. If it has the experiment already, the run makes another version of it. "
    "Default: the storage that is configured, as for `aiostorage status`.",
)
@click.option(
    "--corpus",
    type=click.Path(exists=True, file_okay=False),
    metavar="DIR",
    help="Pack a sample of the files in this directory.  [default: Python's own library]",
)
@click.option(
    "--sample",
    type=click.FloatRange(min=0, min_open=True, max=1024),
    default=0.75,
    show_default=True,
    metavar="MIB",
    help="How much of the corpus to pack.",
)
@click.option(
    "--processes",
    type=click.IntRange(1, 256),
    default=2,
    show_default=True,
    help="Worker processes.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 1000),
    default=4,
    show_default=True,
    help="Async workers in each process.",
)
@click.option(
    "--trials",
    type=click.IntRange(min=1),
    default=48,
    show_default=True,
    help="The number of points to try.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="The same seed gives the same points, with any number of workers.",
)
@click.option(
    "--objective",
    metavar="MODULE:FUNCTION",
    help="Minimise this function instead. It takes the parameters as a dict and returns a number, "
    "or a dict with an 'objective'. A plain function runs in threads, a coroutine function in the "
    "event loop.",
)
@click.option(
    "--space",
    multiple=True,
    metavar="NAME=VALUES",
    help="A parameter of --objective: low:high (integers if written so, else reals) or a,b,c. May "
    "be given several times.  [default: x=-5.0:5.0 y=-5.0:5.0]",
)
@click.option(
    "--kill",
    is_flag=True,
    help="Kill one process (SIGKILL) in the middle of its trials, which the others then do.",
)
@click.option(
    "--lost-after",
    type=click.FloatRange(min=0.1),
    metavar="SECONDS",
    help="A trial counts as lost this long after its last heartbeat.  [default: 30, with --kill 3]",
)
@click.option("--quiet", is_flag=True, help="Print only the report at the end.")
@debug_option
@click.pass_context
def demo(
    ctx: click.Context,
    *,
    url: str | None,
    corpus: str | None,
    sample: float,
    processes: int,
    workers: int,
    trials: int,
    seed: int,
    objective: str | None,
    space: tuple[str, ...],
    kill: bool,
    lost_after: float | None,
    quiet: bool,
) -> int:
    """Run a random search with many workers, and show what the storage does for them.

    By default, the workers search for the LZMA2 parameters that pack some files best. They suggest
    points under the algorithm lock, reserve trials, evaluate them in threads and complete them.
    They run in several processes that share nothing but the storage. The trials of a process that
    dies are done by the other processes.

    Exit codes: 0 when all trials are completed, 1 when some are broken or the workers died, 2 for
    invalid arguments and storages, 130 after Ctrl-C.
    """
    store = named_store(url)
    if store.engine == "memory":
        if _given(ctx, "processes") and processes > 1:
            raise click.UsageError(
                "a storage in memory cannot be shared by several processes; use --processes 1", ctx
            )
        processes = 1
    if kill and processes < 2:
        raise click.UsageError("--kill needs a process that survives: --processes 2 or more", ctx)
    for name, goes_with in (("sample", objective is None), ("space", objective is not None)):
        if _given(ctx, name) and not goes_with:
            other = "does not go" if name == "sample" else "goes only"
            raise click.UsageError(f"--{name} {other} with --objective", ctx)
    settings = DemoSettings(
        store=store,
        spec=ProblemSpec(objective, space, corpus, sample),
        processes=processes,
        workers=workers,
        trials=trials,
        seed=seed,
        kill=kill,
        lost_after=lost_after or (3.0 if kill else 30.0),
        debug=ctx.meta.get(DEBUG_KEY, False),
    )
    program = ctx.find_root().info_name or "aiostorage"
    run = DemoRun(settings, settings.spec.problem())
    return anyio.run(partial(_run, settings, run, program, quiet=quiet))


def _given(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) not in (None, ParameterSource.DEFAULT)


async def _run(settings: DemoSettings, run: DemoRun, program: str, *, quiet: bool) -> int:
    console = Terminal()
    display = display_on(console, run.problem, quiet=quiet)
    async with run:
        if not quiet:
            heading = _heading(settings, run)
            console.print(heading, markup=False, soft_wrap=not console.is_terminal)
        try:
            with display:
                await run.execute(display.update)
                display.finish(run.state)
        except StoppedBySignal as stop:
            _print_stopped(run)
            return 128 + stop.number
        except anyio.get_cancelled_exc_class():  # Ctrl-C
            _print_stopped(run)
            raise
        except RunFailed as error:
            raise click.ClickException(str(error)) from error
        if not quiet:
            console.print()
        status_command = f"{program} status"
        if settings.store.origin is None:  # else it is the default there, too
            shown = _without_password(str(settings.store.options["url"]))
            status_command += f" {shlex.quote(shown)}"
        DemoReport(
            problem=run.problem,
            state=run.state,
            best=await run.best(),
            references=run.references,
            name=run.name,
            location=None if settings.in_memory else run.location,
            status_command=status_command,
            kill=settings.kill,
        ).print(console)
        return 1 if run.state.statuses[TrialStatus.BROKEN] else 0


def _print_stopped(run: DemoRun) -> None:
    done, where = run.state.statuses[TrialStatus.COMPLETED], run.location
    echo(
        f"stopped after {done} of {plural(run.state.trials, 'trial')}; they are in {where}, "
        f"experiment {run.name}",
        err=True,
    )


def _heading(settings: DemoSettings, run: DemoRun) -> str:
    return (
        f"Looking for {run.problem.title}: {plural(settings.trials, 'trial')}, "
        f"{plural(settings.workers, 'worker')} in each of "
        f"{plural(settings.processes, 'process')}, on {run.location} (experiment {run.name})"
    )


def _without_password(url: str) -> str:
    url = re.sub(r"(://[^:/@]*):[^/]*@", r"\1:***@", url)
    return _SECRET_OPTION.sub(r"\1***", url)
