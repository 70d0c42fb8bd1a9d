"""Tiles: the part of a sum that one Triton program computes."""

from __future__ import annotations

from dataclasses import dataclass

VECTOR = 16  # bytes that a thread reads at once
LINE = 128  # bytes of a line of the cache: what neighboring threads read together
THREADS = 256  # of one program at most
WARP = 32
POSITIONS = 32  # of one program: a tile of 4 × 8 reads 140 positions at K = 7
TAPS = 16  # taps along a row held at a time: 16 operands of 4 bytes in each thread for each channel


def power_of_two(number: int) -> int:
    """The smallest power of two that is not below `number`."""
    return 1 << (number - 1).bit_length()


@dataclass(frozen=True)
class Tile:
    """The part of the output of one program; every number is a power of two.

    A program walks the rows of the neighborhood. Of each row a thread holds `taps` taps of one
    position and of the few channels that make 16 bytes, so that a sum over taps stays within it.
    """

    rows: int
    columns: int
    taps: int
    heads: int
    channels: int  # of one head
    warps: int

    @classmethod
    def of(cls, height: int, width: int, taps: int, heads: int, head_width: int, itemsize: int) -> Tile:
        """The tile for maps of `height` × `width` outputs and `taps` taps in a row.

        Channels come first, because neighboring threads must read neighboring channels: a line
        of them from one head or, where heads are narrow, from several. Positions share the rest.
        Channels are read together where the width of a head allows it: at a width of 3 one by one.

        | float32: head width, K   | positions | taps | heads × channels | warps |
        |--------------------------|-----------|------|------------------|-------|
        | 32, 7 (Swin)             | 4 × 8     | 8    | 1 × 32           | 8     |
        | 16, 7 (involution)       | 4 × 8     | 8    | 2 × 16           | 8     |
        | 2048, 3 (DDF)            | 4 × 8     | 4    | 1 × 32           | 8     |
        | 3, 7 (32 groups of 96)   | 1 × 8     | 8    | 8 × 4            | 8     |
        | 1, 7 (as many as C)      | 1 × 8     | 8    | 32 × 1           | 8     |
        """
        together = min(VECTOR // itemsize, head_width & -head_width)  # the power of two that divides it
        line = min(LINE // itemsize, WARP * together)
        channels = min(power_of_two(head_width), line)
        of_heads = min(power_of_two(heads), line // channels)
        while heads % of_heads and of_heads * channels > WARP:  # 3 heads of 32: one at a time
            of_heads //= 2
        positions = max(1, min(POSITIONS, THREADS * together // (of_heads * channels)))
        columns = min(8, positions, power_of_two(width))
        rows = min(positions // columns, power_of_two(height))
        threads = rows * columns * of_heads * channels // together
        return cls(rows, columns, min(power_of_two(taps), TAPS), of_heads, channels, max(1, threads // WARP))

    def parts(self, heads: int, head_width: int) -> int:
        """Programs that share the heads and channels of one tile of positions."""
        return -(-heads // self.heads) * -(-head_width // self.channels)

    def programs(self, batch: int, height: int, width: int, parts: int) -> int:
        """Programs of a whole batch of maps."""
        return batch * -(-height // self.rows) * -(-width // self.columns) * parts

    def constants(self) -> dict[str, int]:
        """The tile as a kernel's constexpr parameters."""
        return {
            "ROWS": self.rows,
            "COLUMNS": self.columns,
            "TAPS": self.taps,
            "HEADS": self.heads,
            "CHANNELS": self.channels,
        }
