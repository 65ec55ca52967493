"""One step of the optimiser over several processes: each computes whole micro-batches, the first one adds them up.

A micro-batch is the same in any process: its rows, its share of the step's loss, its dropout. Its gradient is therefore
the same to the bit, and the first process adds gradients in the order of the micro-batches, as one process does. It
alone runs transformers' Trainer: optimiser, schedule, evaluation, checkpoints and log know nothing of the others.
Before each step it sends the parameters that are trained, and gets back as many gradients.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from tunescope import processes
from tunescope.processes import Team
from tunescope.progress import Progress
from tunescope.training.callbacks import StepStream
from tunescope.training.job import Job
from tunescope.training.microbatches import MicroBatches
from tunescope.training.options import streams
from tunescope.training.rows import FeatureRows, StoredRows


class Crew:
    """The other processes, as the first one's micro-batches see them.

    Args:
        team: The processes.
        module: What is trained.
    """

    def __init__(self, team: Team, module: nn.Module) -> None:
        self.team = team
        self.trained = _trained(module)
        self._shared = False

    def begin(self, step: int, mass: Any, batches: Sequence[dict[str, Any]]) -> None:
        """Send what the micro-batches of a step need; a step of one micro-batch is computed here.

        Raises:
            RunError: A process ended.
        """
        self._shared = len(batches) > 1
        if self._shared:
            values = [one.detach().numpy() for one in self.trained]
            self.team.tell((step, mass, values, [batch["positions"].tolist() for batch in batches]))

    def take(self, number: int) -> torch.Tensor | None:
        """Add the gradient of a micro-batch of another process, and return its loss; None where it is computed here.

        Raises:
            RunError: The process ended.
        """
        owner = number % self.team.size
        if owner == 0 or not self._shared:
            return None
        loss, gradients = self.team.hear(owner)
        with torch.no_grad():
            for parameter, gradient in zip(self.trained, gradients, strict=True):
                if gradient is not None:
                    _accumulate(parameter, torch.from_numpy(gradient))
        found: torch.Tensor = loss
        return found


@contextlib.contextmanager
def shared_steps(job: Job, micro: MicroBatches, progress: Progress) -> Iterator[None]:
    """Let other processes compute micro-batches while the block trains, where there are any and the job allows it.

    Args:
        job: What is trained.
        micro: The trainer's micro-batches.
        progress: Where it is said why the first process trains alone.
    """
    team = processes.team(None, job.trained)
    reason = None if team is None else why_alone(job)
    if reason is not None:
        progress.say(f"  the first process trains alone: {reason}")
    if team is None or reason is not None:
        yield
        return
    with team.share(_help, job.trained, job.train, job.loss, streams(job.options.seed)["dropout"]):
        micro.crew = Crew(team, job.trained)
        try:
            yield
        finally:
            micro.crew = None
        team.tell(None)


def why_alone(job: Job) -> str | None:
    """Return in a sentence why steps of a job are not shared, or None."""
    arguments = job.prepared.arguments
    size = int(arguments.per_device_train_batch_size)
    if isinstance(job.train, FeatureRows):
        return "the head alone is trained, on features that are known"
    if isinstance(job.train, StoredRows):
        return "what frozen blocks gave is stored for one process (with activation_store: never, steps are shared)"
    if job.variance is not None:
        return "training.variance_loss looks at all rows of a step at once"
    if job.prepared.precision != "fp32" or job.prepared.recompute or arguments.torch_compile:
        return "steps are shared in fp32, neither recomputed nor compiled"
    if arguments.neftune_noise_alpha is not None:
        return "training.neftune_noise_alpha adds noise by a hook"
    if arguments.gradient_accumulation_steps == 1:
        half = f"{size // 2} and gradient_accumulation_steps: 2" if size > 1 else "1"
        return (
            "a step is one micro-batch, and micro-batches are what is shared; "
            f"per_device_train_batch_size: {half} makes two of its {size} rows"
        )
    return None


def _help(team: Team, module: nn.Module, rows: Any, loss: Any, seed: int) -> None:
    """Compute this process's micro-batches of every step until the leader has no more."""
    stream = StepStream(seed)
    micro = MicroBatches(rows, loss, None, stream, module)
    trained = _trained(module)
    module.train()
    while (order := team.told()) is not None:
        stream.step, mass, values, batches = order
        with torch.no_grad():
            for parameter, value in zip(trained, values, strict=True):
                parameter.copy_(torch.from_numpy(value))
        for number, positions in enumerate(batches):
            if number % team.size == team.rank:
                module.zero_grad(set_to_none=True)
                stream.reseed(number)
                inputs = rows.collate(positions)
                found = loss.total(micro.forward(module, inputs)[0], inputs["labels"]) / mass
                found.backward()
                gradients = [None if one.grad is None else one.grad.numpy() for one in trained]
                team.answer((found.detach(), gradients))


def _trained(module: nn.Module) -> list[nn.Parameter]:
    return [one for one in module.parameters() if one.requires_grad]


def _accumulate(parameter: nn.Parameter, gradient: torch.Tensor) -> None:
    """Add a gradient as a backward pass does, and call the hooks that wait for that."""
    if parameter.grad is None:
        parameter.grad = gradient
    else:
        parameter.grad += gradient
    hooks: Any = getattr(parameter, "_post_accumulate_grad_hooks", None)
    for hook in () if hooks is None else hooks.values():
        hook(parameter)
