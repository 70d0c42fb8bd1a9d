"""Reporter that interrupts a run; shared by the tests of interrupted runs."""

from __future__ import annotations

from ablate.training.progress import Silent


class StopAfter(Silent):
    """Interrupts the run when so many steps have been reported."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def stepped(self, loss: float) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt
