"""Several processes, as ``torchrun`` or ``accelerate launch`` starts them: one leads, the others compute shares.

The first process does what a single one would do: it alone decides, writes and speaks. The others wait and compute
the batches that it leaves to them. Nothing can therefore be done twice, and no number depends on how many processes
there are: a batch is what it would be in one process, one process alone computes it, and what comes back is taken up
in the order of the batches.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import secrets
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Client, Connection, Listener
from typing import Any, TypeVar

from tunescope.errors import ConfigError, RunError

Item = TypeVar("Item")
Made = TypeVar("Made")

FEWEST_ROWS = 64  # below, sending the model costs more than the rows
LOST = "A process of this run ended, or cannot be reached"
# What tells libraries that they are one of several; they are not: only the first one trains and evaluates.
LAUNCHER = (
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK",
    "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
)  # fmt: skip


class _Gone(Exception):
    """The leader let this process go, or ended."""


@dataclass
class Team:
    """The processes of a run as one of them sees them.

    Attributes:
        rank: Which one this is; 0 leads.
        size: How many there are.
        links: Of the leader a connection to every other, by rank; of the others one to the leader, at 0.
        sharing: Of the leader, whether work is being shared right now; only one thing at a time is.
    """

    rank: int
    size: int
    links: dict[int, Connection] = field(default_factory=dict)
    sharing: bool = False

    def tell(self, what: Any) -> None:
        """Send something to every process that this one is linked to.

        Raises:
            RunError: One of them ended.
        """
        content = pickle.dumps(what, protocol=pickle.HIGHEST_PROTOCOL)
        for rank, link in self.links.items():
            try:
                link.send_bytes(content)
            except OSError as error:
                raise _lost(rank) from error

    def told(self) -> Any:
        """Return what the leader says next."""
        try:
            what = pickle.loads(self.links[0].recv_bytes())
        except (EOFError, OSError) as error:
            raise _Gone from error
        if what is _Gone:
            raise _Gone
        return what

    def answer(self, value: Any) -> None:
        """Send the leader a share; plain pickles, because torch's own share memory and fail between machines."""
        self._send((False, value))

    def fail(self, error: Exception) -> None:
        """Send the leader the error that kept this process from its share."""
        self._send((True, error))

    def _send(self, what: tuple[bool, Any]) -> None:
        try:
            self.links[0].send_bytes(pickle.dumps(what, protocol=pickle.HIGHEST_PROTOCOL))
        except OSError as error:
            raise _Gone from error

    def hear(self, rank: int) -> Any:
        """Return the next share of a process.

        Raises:
            RunError: It ended.
            TunescopeError: It could not do its share; its own error.
        """
        try:
            failed, value = pickle.loads(self.links[rank].recv_bytes())
        except (EOFError, OSError) as error:
            raise _lost(rank) from error
        if failed:
            raise value
        return value

    @contextlib.contextmanager
    def share(self, work: Callable[..., None], *arguments: Any) -> Iterator[None]:
        """Let every other process call ``work(team, *arguments)`` while the block runs.

        On an error the others are let go, because what they are about to send belongs to what failed; whatever
        follows is done by the leader alone.
        """
        self.tell((work, arguments))
        self.sharing = True
        try:
            yield
        except BaseException:
            self.end()
            raise
        finally:
            self.sharing = False

    def end(self) -> None:
        """Let the other processes go."""
        for link in self.links.values():
            with contextlib.suppress(OSError):
                link.send_bytes(pickle.dumps(_Gone))
            link.close()
        self.links.clear()


_TEAM: list[Team] = []


def count() -> int:
    """Return how many processes a launcher started; 1 without one."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def several() -> bool:
    """Return whether this process leads others, or serves."""
    return bool(_TEAM)


def team(rows: int | None = None, *modules: Any) -> Team | None:
    """Return the team that a leader can share work with, or None.

    Args:
        rows: How many rows there are; few are not shared.
        modules: The torch modules that would be sent. One that is being read or edited by hooks is not: they stay
            here.
    """
    if not _TEAM or not _TEAM[0].links or _TEAM[0].sharing or _TEAM[0].rank:
        return None
    if (rows is not None and rows < FEWEST_ROWS) or any(map(_held, modules)):
        return None
    return _TEAM[0]


@contextlib.contextmanager
def shared(
    rows: int, modules: Iterable[Any], work: Callable[..., None], *arguments: Any
) -> Iterator[Team | None]:
    """Share the block's work where there are other processes and enough rows; yield the team, or None.

    Args:
        rows: How many rows there are.
        modules: The torch modules among the arguments.
        work: What every other process calls, with the team and the arguments; it passes through the same items by
            :func:`in_turns`.
        arguments: What it needs.
    """
    found = team(rows, *modules)
    with contextlib.nullcontext() if found is None else found.share(work, *arguments):
        yield found


def in_turns(
    items: Iterable[Item], make: Callable[[Item], Made], team: Team | None
) -> Iterator[tuple[Item, Made]]:
    """Yield every item with what ``make`` makes of it, in the order of the items.

    With a team, item ``i`` is made by process ``i`` modulo their number; the others go through the same items, send
    what they make and yield nothing.
    """
    for number, item in enumerate(items):
        owner = 0 if team is None else number % team.size
        if team is None or owner == team.rank == 0:
            yield item, make(item)
        elif team.rank == 0:
            yield item, team.hear(owner)
        elif owner == team.rank:
            team.answer(make(item))


def lead_or_serve(command: Callable[[], Any]) -> int:
    """Run a command in the first process and let the others compute what it shares; return the exit code, theirs is 0.

    Args:
        command: What the first process runs; it returns the exit code.

    Raises:
        RunError: The processes do not find one another.
    """
    own = _joined()
    _TEAM.append(own)
    try:
        if own.rank:
            return _serve(own)
        try:
            return int(command())
        finally:
            own.end()
    finally:
        _TEAM.clear()


def refuse_device(device: str) -> None:
    """Refuse what several processes cannot do.

    Raises:
        ConfigError: The device is no processor.
    """
    if _TEAM and not device.startswith("cpu"):
        raise ConfigError(
            f"Several processes share work on processors alone; the device is {device}.",
            hint="Add --device cpu, or start one process: with several GPUs it trains on all (--workers).",
        )


def _serve(own: Team) -> int:
    """Compute shares until the leader lets this process go."""
    # Ctrl-C and a launcher's SIGTERM reach every process. The leader saves a checkpoint and then lets this one go,
    # and the step that it finishes before needs its share.
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    with contextlib.suppress(_Gone):  # the leader's end is the run's, and it has said why
        while True:
            work, arguments = own.told()
            try:
                work(own, *arguments)
            except _Gone:
                raise
            except Exception as error:
                own.fail(error)
    return 0


def _held(module: Any) -> bool:
    """Return whether hooks hold a module, or something else than its class says how it runs."""
    return any(
        one._forward_hooks or one._forward_pre_hooks or "forward" in one.__dict__ for one in module.modules()
    )


def _lost(rank: int) -> RunError:
    return RunError(f"{LOST} ({rank}).", hint="Run the same command again: it continues.")


def _joined() -> Team:
    """Find the other processes through the launcher's store and link each with the first."""
    from torch.distributed import rendezvous

    try:
        store, rank, size = next(iter(rendezvous("env://")))
        own = Team(rank, size)
        host = os.environ.get("MASTER_ADDR", "localhost")
        if rank == 0:
            secret = secrets.token_bytes(32)
            local = host in ("localhost", "127.0.0.1")
            with Listener(("127.0.0.1" if local else "0.0.0.0", 0), backlog=size, authkey=secret) as listener:
                store.set("tunescope-secret", secret)
                store.set("tunescope-port", str(listener.address[1]))
                for _ in range(size - 1):
                    link = listener.accept()
                    own.links[link.recv()] = link
            own.links = dict(sorted(own.links.items()))
        else:
            port, secret = int(store.get("tunescope-port")), store.get("tunescope-secret")
            own.links[0] = Client(("127.0.0.1" if host == "localhost" else host, port), authkey=secret)
            own.links[0].send(rank)
    except (OSError, EOFError, ValueError, RuntimeError) as error:
        raise RunError(
            f"The processes do not find one another: {error}.",
            hint="Look at the launcher's address and port.",
        ) from error
    for name in [one for one in os.environ if one in LAUNCHER or one.startswith("ACCELERATE_")]:
        os.environ.pop(name)  # precision and devices are the study's to say
    return own
