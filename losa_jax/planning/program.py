"""A compiled program read from its text: traffic, collectives, buffers.

XLA's own cost analysis counts the body of a loop once. Here bodies are
multiplied out by the trip counts that XLA writes beside its loops, so
numbers are those of a whole run on one device.
"""

import collections
import math
import re
from typing import NamedTuple

# Bytes of an element by XLA's names.
_ELEMENT_BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2,
                  "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8,
                  "f64": 8}
_COLLECTIVE = re.compile(
    r"(all-gather|all-reduce|reduce-scatter|all-to-all|"
    r"collective-permute)(-start)?")
_HEADER = re.compile(r"(ENTRY )?%?([\w.\-]+) (?:\(.*)?\{$")
_INSTRUCTION = re.compile(
    r"\s+(ROOT )?%?([\w.\-]+) = (.+?) ([\w\-]+)\((.*)$")
# An array with its layout; S(1) in it is a TPU's fast memory.
_SHAPE = re.compile(r"(\w+)\[([\d,]*)\](\{[^}]*\})?")
_CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|true_computation|"
    r"false_computation)=%?([\w.\-]+)|branch_computations=\{([^}]*)\}")
# They name or cut what lies in memory already, or run other computations.
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast",
         "while", "conditional", "call", "after-all", "partition-id"}
_SLICES = {"dynamic-slice", "slice", "gather"}


class Collective(NamedTuple):
    """Collectives of one kind, on one device, over a whole run.

    Attributes:
      num_calls: how many run.
      total_bytes: the larger of operand and result, all together.
      largest_bytes: of the largest array.
    """

    num_calls: int
    total_bytes: int
    largest_bytes: int


class _Instruction(NamedTuple):
    name: str
    is_root: bool
    shape: str
    opcode: str
    operands: tuple[str, ...]
    rest: str


class Program:
    """The text of a compiled program, for one device.

    Attributes:
      runs: how often each computation runs, fusions included.
      unknown_loops: loops without a trip count, counted as one round.
    """

    def __init__(self, text: str):
        """text: `compiled.as_text()`."""
        self._bodies: dict[str, list[_Instruction]] = {}
        self._entry = ""
        self._read(text)
        self._by_name = {body: {one.name: one for one in instructions}
                         for body, instructions in self._bodies.items()}
        self.runs: collections.Counter[str] = collections.Counter()
        self.unknown_loops = 0
        self._fused: set[str] = set()
        self._visit(self._entry, 1, False)

    def _read(self, text: str) -> None:
        current: list[_Instruction] = []
        for line in text.splitlines():
            if header := _HEADER.match(line):
                current = self._bodies.setdefault(header[2], [])
                if header[1]:
                    self._entry = header[2]
            elif found := _INSTRUCTION.match(line):
                arguments, rest = _split_arguments(found[5])
                current.append(_Instruction(
                    found[2], bool(found[1]), found[3], found[4],
                    tuple(re.findall(r"%([\w.\-]+)", arguments)),
                    # Of these the argument is the value.
                    arguments if found[4] in ("parameter", "constant")
                    else rest))

    def _visit(self, body: str, times: int, fused: bool) -> None:
        self.runs[body] += times
        if fused:
            self._fused.add(body)
        for one in self._bodies.get(body, ()):
            rounds = times
            if one.opcode == "while":
                known = self._trip_count(body, one)
                self.unknown_loops += known is None
                rounds *= known or 1
            elif one.opcode not in ("fusion", "call", "conditional",
                                    "async-start"):
                continue
            for called in _called(one):
                self._visit(called, rounds, fused or one.opcode == "fusion")

    def _trip_count(self, body: str, loop: _Instruction) -> int | None:
        """Rounds of a while loop; None where its text does not tell.

        Where XLA does not write it beside the loop (on TPU), the condition
        tells: jax's loops count from 0 to below a constant.
        """
        if known := re.search(r"known_trip_count\D*(\d+)", loop.rest):
            return int(known[1])
        found = re.search(r"condition=%?([\w.\-]+)", loop.rest)
        condition = self._by_name.get(found[1] if found else "", {})
        root = next((one for one in condition.values() if one.is_root), None)
        if root is None or "direction=LT" not in root.rest:
            return None
        limit = condition.get(root.operands[1])
        if limit is not None and limit.opcode == "get-tuple-element":
            # Carried through the loop unchanged.
            found = re.search(r"index=(\d+)", limit.rest)
            if found is None:
                return None
            place = int(found[1])
            outside = self._by_name[body]
            start = outside.get(loop.operands[0])
            if start is None or start.opcode != "tuple":
                return None
            limit = outside.get(start.operands[place])
            if limit is not None and limit.opcode == "copy":
                limit = outside.get(limit.operands[0])
        if limit is None or limit.opcode != "constant":
            return None
        return int(limit.rest)

    def collectives(self) -> dict[str, Collective]:
        """By kind; empty for a program that exchanges nothing."""
        sizes: dict[str, list[tuple[int, int, int]]] = {}
        for kind, starts, times, given, result in self._exchanges():
            operands, results = _sizes(given), _sizes(result)
            taken = sum(results)
            # Where it only starts here, its operands come first.
            if starts and kind != "all-reduce":
                taken -= sum(operands)
            sizes.setdefault(kind, []).append(
                (times, max(sum(operands), taken), max(operands + results)))
        return {kind: Collective(
            sum(times for times, _, _ in found),
            sum(times * size for times, size, _ in found),
            max(largest for _, _, largest in found))
            for kind, found in sorted(sizes.items())}

    def exchanged_arrays(self) -> set[str]:
        """Every array in a collective, as "bf16[8,128]"."""
        return {f"{element}[{shape}]"
                for *_, given, result in self._exchanges()
                for element, shape, _ in _SHAPE.findall(given + result)}

    def _exchanges(self):
        """(kind, whether it only starts, runs, operands, result) of each."""
        for body, times in self.runs.items():
            known = self._by_name.get(body, {})
            for one in known.values():
                if kind := _COLLECTIVE.fullmatch(one.opcode):
                    given = " ".join(known[name].shape for name
                                     in one.operands if name in known)
                    yield kind[1], bool(kind[2]), times, given, one.shape

    def memory_traffic(self) -> int:
        """Bytes to and from the device's memory.

        Each instruction reads its operands once and writes its result once;
        inside a fusion nothing touches memory, and slices count as what they
        cut. What stays in a cache is counted all the same, padding of layouts
        is not.
        """
        return sum(times * self._traffic_of(body, one)
                   for body, times in self.runs.items()
                   if body not in self._fused
                   for one in self._bodies.get(body, ()))

    def _traffic_of(self, body: str, one: _Instruction) -> int:
        if one.opcode in _FREE or one.opcode.endswith("-done"):
            return 0
        operands = [self._by_name[body].get(name) for name in one.operands]
        sizes = [0 if found is None else _size(found.shape)
                 for found in operands]
        if one.opcode in _SLICES:
            return 2 * _size(one.shape)
        if one.opcode == "dynamic-update-slice":
            return 2 * sizes[1]
        if one.opcode != "fusion":
            return _size(one.shape) + sum(sizes)
        inside = next(iter(_called(one)), "")
        read = sum(self._parameter_bytes(inside, number, size)
                   for number, size in enumerate(sizes))
        return read + self._result_bytes(inside, one)

    def _parameter_bytes(self, body: str, number: int, size: int) -> int:
        """What a fusion reads of an operand of `size` bytes."""
        instructions = self._bodies.get(body, ())
        names = {one.name for one in instructions
                 if one.opcode == "parameter" and one.rest == str(number)}
        total = 0
        for one in instructions:  # in order: definitions before uses
            places = [i for i, name in enumerate(one.operands)
                      if name in names]
            if not places:
                continue
            if one.opcode == "bitcast":
                names.add(one.name)
            elif one.opcode in _SLICES and places == [0]:
                total += _size(one.shape)
            elif one.opcode == "dynamic-update-slice" and places == [0]:
                continue
            elif one.opcode == "fusion":
                inside = next(iter(_called(one)), "")
                total += sum(self._parameter_bytes(inside, place, size)
                             for place in places)
            else:
                return size
        return min(total, size)

    def _result_bytes(self, body: str, fusion: _Instruction) -> int:
        """What it writes: of a slice put into a buffer, the slice."""
        known = self._by_name.get(body, {})
        root = next((one for one in known.values() if one.is_root), None)
        while root is not None and root.opcode == "bitcast":
            root = known.get(root.operands[0])
        if root is not None and root.opcode == "dynamic-update-slice":
            update = known.get(root.operands[1])
            return 0 if update is None else _size(update.shape)
        return _size(fusion.shape)

    def largest_buffers(self, count: int) -> list[tuple[int, str]]:
        """(bytes, what it is) of the largest results, largest first."""
        found: dict[str, int] = {}
        for body in self.runs:
            if body in self._fused:
                continue
            for one in self._bodies.get(body, ()):
                if one.opcode in _FREE:
                    continue
                for kind, shape, layout in _SHAPE.findall(one.shape):
                    source = re.search(r'op_name="([^"]*)"', one.rest)
                    name = (f"{kind}[{shape}] "
                            f"{source[1] if source else one.opcode}")
                    found[name] = _bytes(kind, shape, layout)
        return sorted(((size, name) for name, size in found.items()),
                      reverse=True)[:count]


def _called(one: _Instruction) -> list[str]:
    names = []
    for single, several in _CALLED.findall(one.rest):
        names += ([single] if single
                  else re.findall(r"%?([\w.\-]+)", several))
    return names


def _split_arguments(text: str) -> tuple[str, str]:
    """Of what follows an opcode's bracket: its arguments, and the rest."""
    depth = 1
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return text[:place], text[place + 1:]
    return text, ""


def _size(shape: str) -> int:
    """Bytes in the device's main memory of an array or a tuple."""
    return sum(_bytes(*found) for found in _SHAPE.findall(shape)
               if "S(1)" not in found[2])


def _sizes(shape: str) -> list[int]:
    """Bytes of an array, or of each array of a tuple."""
    return [_bytes(*found) for found in _SHAPE.findall(shape)]


def _bytes(kind: str, shape: str, _layout: str = "") -> int:
    return _ELEMENT_BYTES.get(kind, 0) * math.prod(
        int(side) for side in shape.split(",") if side)
