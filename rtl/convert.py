"""Verilog of a component, on request without the initial contents of its memories.

Amaranth writes the initial value of every row, zeros included. The memories of a large core (110
Mbit for `u200`) would take gigabytes and many minutes for that, and nothing here reads a row
it has not written, but for words that meet a zero weight.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any
from unittest import mock

from amaranth.back import rtlil, verilog

__all__ = ["builtin_yosys", "convert", "convert_rtlil"]


@contextlib.contextmanager
def builtin_yosys() -> Iterator[None]:
    """Let Amaranth write Verilog with its own yosys; it would prefer whatever is on the PATH."""
    with mock.patch.dict(os.environ, {"AMARANTH_USE_YOSYS": "builtin"}):
        yield


def convert(component: Any, *, name: str = "top", initial: bool = True, **arguments: Any) -> str:
    """Verilog of a component with a signature.

    Parameters
    ----------
    component : wiring.Component
        What to convert.
    name : str
        Name of the top module.
    initial : bool
        Whether memories that begin with zeros say so.
    **arguments
        For `amaranth.back.verilog.convert`.
    """
    os.environ.setdefault("AMARANTH_USE_YOSYS", "builtin")
    with contextlib.nullcontext() if initial else _without_zeros():
        return verilog.convert(component, name=name, **arguments)


def convert_rtlil(component: Any, *, name: str = "top", initial: bool = True) -> str:
    """RTLIL of a component with a signature; arguments as for `convert`."""
    with contextlib.nullcontext() if initial else _without_zeros():
        return rtlil.convert(component, name=name, emit_src=False)


@contextlib.contextmanager
def _without_zeros() -> Iterator[None]:
    """Let Amaranth leave out initial contents that are zero (it has no option for that)."""
    emitter = rtlil.ModuleEmitter
    emit = emitter.emit_memory

    def emit_memory(self: Any, index: int, cell: Any) -> None:
        if any(cell.init):
            emit(self, index, cell)

    emitter.emit_memory = emit_memory
    try:
        yield
    finally:
        emitter.emit_memory = emit
