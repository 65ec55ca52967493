"""One step of the optimiser in micro-batches: in any cut, the gradient is that of the whole batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tunescope.errors import RunError
from tunescope.training.callbacks import StepStream
from tunescope.training.losses import ClassLoss, Moments, VarianceLoss
from tunescope.training.memory import out_of_memory
from tunescope.training.rows import TokenRows

if TYPE_CHECKING:
    from tunescope.training.crew import Crew

MOST_NAMED = 16
Inputs = dict[str, Any]


class MicroBatches:
    """The micro-batches of the step that is being computed.

    Where memory runs out, gradients of the step are dropped, every micro-batch is cut into twice as many parts,
    and the step is computed again. The loss of a part is its share of the loss of the step, so what the optimiser
    sees is the same to rounding; only dropout draws other masks. Later steps keep the smaller parts.

    Args:
        rows: The train rows.
        loss: The cross entropy of rows.
        variance: The variance term, or None.
        stream: Seeds dropout at the start of a step.
        head: The classifier's head; the variance term is about what it reads.

    Attributes:
        parts: Into how many parts a micro-batch is cut; a power of 2.
        crew: Other processes that compute micro-batches of a step, or None.
    """

    def __init__(
        self,
        rows: TokenRows,
        loss: ClassLoss,
        variance: VarianceLoss | None,
        stream: StepStream,
        head: nn.Module,
    ) -> None:
        self.rows, self.loss, self.variance, self.stream, self.head = rows, loss, variance, stream, head
        self.parts = 1
        self._batches: list[Inputs] = []
        self._number = 0
        self._mass: Any = 0
        self._moments: Moments | None = None
        self.crew: Crew | None = None

    @property
    def halved(self) -> int:
        """How many times the micro-batch was halved."""
        return self.parts.bit_length() - 1

    def begin(self, batches: list[Inputs]) -> Any:
        """Take up the micro-batches of a step; return what their rows weigh together."""
        self._batches, self._number, self._moments = batches, 0, None
        self._mass = sum(self.loss.mass(batch["labels"]) for batch in batches)
        return self._mass

    # ---- forward ----

    def forward(self, model: nn.Module, inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits [B, C] and the vectors that the head read (empty where no loss needs them)."""
        given = {name: value for name, value in inputs.items() if name not in ("labels", "positions")}
        seen: list[torch.Tensor] = []
        if self.variance is None:
            return model(**given).float(), torch.empty(0)
        handle = self.head.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
        try:
            return model(**given).float(), seen[0].float()
        finally:
            handle.remove()

    def moments(self, model: nn.Module, pooled: torch.Tensor) -> Moments:
        """Return the moments of the pooled vectors of the whole step.

        A step of several parts needs them before the first gradient: one more forward pass over the step, with
        the same dropout.
        """
        if len(self._batches) == 1 and self.parts == 1:
            return Moments.of(pooled)
        if self._moments is None:
            state = torch.get_rng_state()
            cuda = torch.cuda.get_rng_state(pooled.device) if pooled.is_cuda else None
            found: Moments | None = None
            with torch.no_grad():
                for number, batch in enumerate(self._batches):
                    self.stream.reseed(number)
                    for part in self._cut(batch, pooled.device):
                        one = Moments.of(self.forward(model, part)[1])
                        found = one if found is None else found + one
            self._moments = found
            torch.set_rng_state(state)
            if cuda is not None:
                torch.cuda.set_rng_state(cuda, pooled.device)
        assert self._moments is not None
        return self._moments

    # ---- one micro-batch ----

    def step(self, model: nn.Module, inputs: Inputs, one: Callable[[Inputs], torch.Tensor]) -> torch.Tensor:
        """Compute loss and gradients of a micro-batch by ``one``, in parts that fit into memory.

        Raises:
            RunError: Memory does not suffice for a single row.
        """
        number, self._number = self._number, self._number + 1
        if self.crew is not None:
            if number == 0:
                self.crew.begin(self.stream.step, self._mass, self._batches)
            found = self.crew.take(number)
            if found is not None:
                return found
        again = False
        while True:
            try:
                if again:  # an interrupted backward pass has left gradients of some parameters
                    model.zero_grad()
                    for place, earlier in enumerate(self._batches[:number]):
                        self._sum(place, earlier, one)
                return self._sum(number, inputs, one)
            except (RuntimeError, MemoryError) as error:
                if self.crew is not None or not out_of_memory(error):
                    raise  # what other processes have computed of the step would be lost
                problem = str(error)
            self._halve(inputs, problem)
            again, self._moments = True, None

    def _sum(self, number: int, inputs: Inputs, one: Callable[[Inputs], torch.Tensor]) -> torch.Tensor:
        self.stream.reseed(number)
        losses = [one(part) for part in self._cut(inputs)]
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    def _cut(self, inputs: Inputs, device: torch.device | None = None) -> Iterator[Inputs]:
        """Yield a micro-batch in parts of equal numbers of rows, each padded by itself."""
        if self.parts == 1:
            yield inputs
            return
        for positions in inputs["positions"].cpu().chunk(self.parts):
            part = self.rows.collate(positions.tolist())
            yield part if device is None else on_device(part, device)

    def _halve(self, inputs: Inputs, problem: str) -> None:
        rows = len(inputs["positions"])
        if math.ceil(rows / self.parts) <= 1:
            longest = int(self.rows.tokens.kept[inputs["positions"].cpu().numpy()].max())
            raise RunError(
                f"Memory does not suffice to train on one row of {longest} tokens at a time ({problem[:120]}).",
                hint="Set data.max_length lower, training.gradient_checkpointing: true, or use a smaller model.",
            )
        self.parts *= 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    # ---- prediction ----

    def predict(
        self, model: nn.Module, inputs: Inputs, rows: TokenRows, device: torch.device
    ) -> torch.Tensor:
        """Return the logits of a batch of ``rows``, in halves where memory runs out."""
        given = on_device(
            {n: value for n, value in inputs.items() if n not in ("labels", "positions")}, device
        )
        try:
            with torch.no_grad():
                return model(**given).float()
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error) or len(inputs["positions"]) == 1:
                raise
        halves = inputs["positions"].cpu().chunk(2)
        return torch.cat([self.predict(model, rows.collate(half.tolist()), rows, device) for half in halves])

    # ---- what must not go on ----

    def refuse_not_finite(self, model: nn.Module, loss: torch.Tensor, inputs: Inputs, step: int) -> None:
        """Stop on a loss that is not a number, before the optimiser sees it.

        Raises:
            RunError: With the ids of the rows.
        """
        if bool(torch.isfinite(loss)):
            return
        bad: list[int] = []
        with torch.no_grad():
            for part in self._cut(inputs, loss.device):
                logits, _ = self.forward(model, on_device(part, loss.device))
                each = self.loss.total(logits, part["labels"].to(loss.device), reduction="none")
                bad += part["positions"].cpu()[~torch.isfinite(each).cpu()].tolist()
        positions = inputs["positions"].cpu().tolist()
        which = "" if len(bad) in (0, len(positions)) else f", {len(bad)} of {len(positions)} in the batch"
        raise _not_finite(f"The loss is {float(loss)}", step, self._names(bad or positions) + which)

    def refuse_gradient(self, norm: Any, step: int) -> None:
        """Stop on a gradient that is not a number, before the optimiser sees it.

        Raises:
            RunError: With the ids of the rows of the step.
        """
        if math.isfinite(float(norm)):
            return
        positions = [position for batch in self._batches for position in batch["positions"].cpu().tolist()]
        raise _not_finite(f"The norm of the gradient is {float(norm)}", step, self._names(positions))

    def _names(self, positions: list[int]) -> str:
        ids = [self.rows.tokens.row_ids[position] for position in positions]
        more = f" and {len(ids) - MOST_NAMED} more" if len(ids) > MOST_NAMED else ""
        return f"row{'s' if len(ids) > 1 else ''} {', '.join(ids[:MOST_NAMED])}{more}"


def on_device(inputs: Inputs, device: torch.device) -> Inputs:
    """Return a batch with its tensors on ``device``."""
    return {n: value.to(device) if isinstance(value, torch.Tensor) else value for n, value in inputs.items()}


def _not_finite(what: str, step: int, rows: str) -> RunError:
    return RunError(
        f"{what} at step {step}, so the training was stopped before that step; the batch: {rows}. The last "
        "checkpoint is kept.",
        hint="Try a lower learning_rate, more warmup_steps, fp32, or look at these rows.",
    )
