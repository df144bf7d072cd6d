"""Pickled Boosters and scikit-learn wrappers, read without unpickling.

Rule: nothing in a pickle is called, imported or hashed. The opcodes are followed symbolically, so that a class is a
name, a call is a name with arguments and a dictionary is a list of pairs; the booster's bytes are then picked out of
the one shape we know. Every other global is refused by its name. Work and memory are bounded by the number of opcodes.

Source: Python Lib/pickletools.py (the opcodes); XGBoost python-package/xgboost/core.py (Booster.__getstate__) and
sklearn.py.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from handler.importer.broken import Damaged, Unsupported
from handler.importer.learner import Wrapper

MAX_OPCODES = 1 << 20  # a fitted XGBClassifier takes a few hundred; evaluation results add one per round and metric
MAX_PICKLE_DEPTH = 8  # wrapper -> Booster -> state -> handle

BOOSTER = "xgboost.core.Booster"
WRAPPERS = {
    f"xgboost.sklearn.{name}"
    for name in ("XGBModel", "XGBRegressor", "XGBClassifier", "XGBRanker", "XGBRFRegressor", "XGBRFClassifier")
}
_BYTES = {"builtins.bytearray", "__builtin__.bytearray", "builtins.bytes", "__builtin__.bytes"}
_ENCODE = "_codecs.encode"
# What the wrappers keep beside their Booster: parameters, labels, evaluation results. All of it is read as names; what
# predict leans on is then picked out as plain values, see `_plain`.
BYSTANDERS = {
    "copyreg._reconstructor",
    "copy_reg._reconstructor",
    "copyreg.__newobj__",
    "copyreg.__newobj_ex__",
    "collections.OrderedDict",
    "collections.defaultdict",
    "numpy.ndarray",
    "numpy.dtype",
    "sklearn.preprocessing.label.LabelEncoder",
    "sklearn.preprocessing._label.LabelEncoder",
    "xgboost.compat.XGBoostLabelEncoder",
    "xgboost.callback.EarlyStopping",
    "xgboost.callback.EvaluationMonitor",
    "xgboost.callback.LearningRateScheduler",
}
BYSTANDERS |= {
    f"{python}.{name}"
    for python in ("builtins", "__builtin__")
    for name in (
        "object",
        "list",
        "dict",
        "set",
        "frozenset",
        "tuple",
        "int",
        "long",
        "float",
        "bool",
        "str",
        "unicode",
        "complex",
        "slice",
    )
}
BYSTANDERS |= {f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")}
BYSTANDERS |= {f"numpy.{core}.numeric._frombuffer" for core in ("core", "_core")}
BYSTANDERS |= {f"numpy.{kind}{bits}" for kind in ("int", "uint", "float") for bits in (8, 16, 32, 64)} | {
    "numpy.bool_",
    "numpy.str_",
    "numpy.bool",
}
# What the predict of a wrapper looks at beside its Booster and its encoder; see predicting.py.
PREDICTING = ("best_iteration", "best_ntree_limit", "missing", "importance_type")
_DTYPE = re.compile(r"(?:[iuf][1248]|b1|U[0-9]{1,4}|O8)")
ALLOWED = {BOOSTER, _ENCODE} | WRAPPERS | _BYTES | BYSTANDERS


@dataclass(slots=True)
class Global:
    name: str


@dataclass(slots=True)
class Pairs:
    """A dictionary, by its writing: later pairs win, keys are whatever they are."""

    items: list[tuple[Any, Any]] = field(default_factory=list)

    def __contains__(self, key: str) -> bool:
        return any(type(name) in (str, bytes) and _as_text(name) == key for name, _ in self.items)

    def get(self, key: str) -> Any:
        for name, value in reversed(self.items):
            if type(name) in (str, bytes) and _as_text(name) == key:
                return value
        return None


@dataclass(slots=True)
class Made:
    """An object some call would have made: what was called, with what, and the state it was given afterwards."""

    maker: Any
    arguments: Any
    state: Any = None


@dataclass(frozen=True, slots=True)
class Pickled:
    """`handle` is what the C++ side of the Booster wrote; names, types and `remembered` (best_iteration,
    best_ntree_limit) what its Python side held, up to 1.3 and 1.7. `wrapper` is what the Booster was in, if anything."""

    handle: bytes
    feature_names: tuple[str, ...]
    feature_types: tuple[str, ...]
    remembered: dict[str, Any]
    wrapper: Wrapper | None


def read(data: bytes) -> Pickled:
    """The Booster inside a pickle of a Booster or of a scikit-learn wrapper.

    raises   Damaged where the opcodes make no sense or hold no booster; Unsupported for a global that neither has
    """
    top = _Machine(data).run()
    name = _class_of(top)
    booster = top
    wrapper = None
    if name in WRAPPERS:
        state = _state(top)
        booster = state.get("_Booster")
        if booster is None:
            raise Damaged(f"the pickled {name} was never fitted")
        wrapper = _wrapper(str(name), state)
    if _class_of(booster) != BOOSTER:
        raise Unsupported(f"the pickle holds {_described(booster)}")
    state = _state(booster)
    handle = _bytes(state.get("handle"))
    if not handle:
        raise Damaged("the pickled Booster is empty")
    remembered = {key: _plain(state.get(key)) for key in ("best_iteration", "best_ntree_limit") if key in state}
    return Pickled(handle, _texts(state.get("feature_names")), _texts(state.get("feature_types")), remembered, wrapper)


def _wrapper(name: str, state: Pairs) -> Wrapper:
    """What it holds that its predict leans on. Raises Unsupported for labels that are neither numbers nor texts."""
    encoder = state.get("_le")
    labels = None
    if encoder is not None:
        found = _plain(_state(encoder).get("classes_"))
        if not isinstance(found, list):
            raise Unsupported("the labels of its wrapper are neither numbers nor texts; train it on 0, 1, 2, ...")
        labels = tuple(found)
    kept = {key: _plain(state.get(key)) for key in PREDICTING if key in state}
    return Wrapper(name.rpartition(".")[2], kept, labels)


def _class_of(made: Any) -> str | None:
    """The class of an object, for the three ways in which pickle makes one."""
    if not isinstance(made, Made) or not isinstance(made.maker, Global):
        return None
    if made.maker.name in (
        "copyreg._reconstructor",
        "copy_reg._reconstructor",
        "copyreg.__newobj__",
        "copyreg.__newobj_ex__",
    ):
        first = made.arguments[0] if isinstance(made.arguments, tuple) and made.arguments else None
        return first.name if isinstance(first, Global) else None
    return made.maker.name


def _state(made: Any) -> Pairs:
    state = made.state
    if isinstance(state, tuple) and len(state) == 2:  # (dictionary, slots)
        state = state[0]
    if not isinstance(state, Pairs):
        raise Damaged(f"the pickled {_class_of(made)} has no state")
    return state


def _bytes(value: Any) -> bytes:
    """A bytes or bytearray value, in the spellings of protocols 0 to 5."""
    for _ in range(MAX_PICKLE_DEPTH):
        if isinstance(value, bytes):
            return value
        if not isinstance(value, Made) or not isinstance(value.maker, Global) or not isinstance(value.arguments, tuple):
            break
        name, arguments = value.maker.name, value.arguments
        if (name not in _BYTES and name != _ENCODE) or not arguments or len(arguments) > 2:
            break
        if isinstance(arguments[0], str):
            if len(arguments) < 2 or arguments[1] not in ("latin1", "latin-1"):
                break
            try:
                return arguments[0].encode("latin-1")
            except UnicodeEncodeError:
                break
        value = arguments[0]
    raise Damaged("the pickled Booster's handle is not bytes")


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, (list, tuple)):
        texts = [_as_text(item) for item in value if type(item) in (str, bytes)]
        if len(texts) == len(value):
            return tuple(texts)
    return ()


def _as_text(value: str | bytes) -> str:
    # Python 2 wrote its strings as bytes.
    return value if isinstance(value, str) else value.decode("latin-1")


def _described(value: Any) -> str:
    """What else it is, and what to do."""
    way_out = "save the booster by itself, with its save_model"
    if isinstance(value, Pairs):
        keys = [repr(_as_text(key)) for key, _ in value.items if type(key) in (str, bytes)]
        named = f" with the keys {', '.join(keys[:5])[:200]}" if keys else ""
        return f"a dict{named}, not a Booster; if one is in it, {way_out}"
    if isinstance(value, (list, tuple)):
        return f"a {type(value).__name__} of {len(value)}, not a Booster; if one is in it, {way_out}"
    what = _class_of(value) or f"a {type(value).__name__}"
    return f"{what}, not a Booster or one of XGBoost's scikit-learn wrappers; {way_out}"


def _plain(value: Any) -> Any:
    """A number, a text, a truth, None, or a list of these; OTHER for what is neither. NumPy's scalars and arrays of one
    axis are read from their bytes; what is nested deeper is not looked into."""
    if isinstance(value, list):
        return [_scalar(item) for item in value]
    if not isinstance(value, Made) or not isinstance(value.maker, Global):
        return _scalar(value)
    name = value.maker.name
    try:
        if name.endswith(".multiarray._reconstruct"):
            _, shape, code, _, data = value.state
        elif name.endswith(".numeric._frombuffer"):
            data, code, shape, _ = value.arguments
        else:
            return _scalar(value)
        (n_items,) = shape
        dtype = _dtype(code)
        found = [_scalar(item) for item in data] if dtype == OBJECTS else _unpacked(dtype, data)
        return found if len(found) == n_items else OTHER
    except (ValueError, TypeError, IndexError, AttributeError, Damaged):
        return OTHER


def _scalar(value: Any) -> Any:
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) is bytes:
        return _as_text(value)
    if not isinstance(value, Made) or not isinstance(value.maker, Global):
        return OTHER
    try:
        if value.maker.name.endswith(".multiarray.scalar"):
            code, data = value.arguments
            return _unpacked(_dtype(code), data)[0]
    except (ValueError, TypeError, IndexError, AttributeError, Damaged):
        pass  # none that we know how to read
    return OTHER


class _Other:
    """What is in a pickle and is no plain value; equal to nothing."""

    def __repr__(self) -> str:
        return "an object"


OTHER = _Other()


OBJECTS = "O8"


def _dtype(made: Any) -> str:
    """NumPy's name of a type, with its byte order."""
    code = _as_text(made.arguments[0])
    if not isinstance(made.maker, Global) or made.maker.name != "numpy.dtype" or not _DTYPE.fullmatch(code):
        raise ValueError("dtype")
    order = _as_text(made.state[1])
    return ("<" if order not in "<>" else order) + code if code not in (OBJECTS, "b1") else code


def _unpacked(dtype: str, data: Any) -> list[Any]:
    found: list[Any] = np.frombuffer(_bytes(data), np.dtype(dtype)).tolist()
    return found


_MARK = object()
_LENGTH = {1: struct.Struct("<B"), 4: struct.Struct("<I"), 8: struct.Struct("<Q")}
_INT = re.compile(rb"-?\d{1,40}L?")


class _Machine:
    """The stack machine of pickle, over names instead of objects."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        try:
            for _ in range(MAX_OPCODES):
                opcode = self.take(1)
                if opcode == b".":
                    return self.pop()
                step = _STEPS.get(opcode)
                if step is None:
                    raise Damaged(f"byte {self.at - 1} of the pickle, {opcode!r}, is no opcode a booster needs")
                step(self)
        except (IndexError, KeyError, ValueError, UnicodeDecodeError, AttributeError, TypeError) as error:
            raise Damaged(f"the pickle is damaged near byte {self.at}") from error
        raise Unsupported(f"the pickle takes more than {MAX_OPCODES} steps to read")

    # -- the file

    def take(self, n_bytes: int) -> bytes:
        if n_bytes > len(self.data) - self.at:
            raise Damaged(
                f"the pickle is truncated: byte {self.at} claims {n_bytes} bytes, {len(self.data) - self.at} are left"
            )
        self.at += n_bytes
        return self.data[self.at - n_bytes : self.at]

    def counted(self, width: int) -> bytes:
        return self.take(_LENGTH[width].unpack(self.take(width))[0])

    def line(self) -> bytes:
        end = self.data.index(b"\n", self.at)
        found = self.data[self.at : end]
        self.at = end + 1
        return found

    # -- the stack

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError("mark")
        return value

    def pop_marked(self) -> list[Any]:
        for at in range(len(self.stack) - 1, -1, -1):
            if self.stack[at] is _MARK:
                found = self.stack[at + 1 :]
                del self.stack[at:]
                return found
        raise ValueError("no mark")

    # -- the opcodes that do more than push

    def find(self, module: str, name: str) -> Global:
        full = f"{module}.{name}"
        if full not in ALLOWED:
            if module.startswith("joblib"):
                raise Unsupported("it was written by joblib; save the booster with Booster.save_model")
            raise Unsupported(
                f"the pickle names {full[:120]!r}, which no Booster holds; save the booster by itself, with its save_model"
            )
        return Global(full)

    def global_line(self) -> None:
        module = self.line().decode()
        self.push(self.find(module, self.line().decode()))

    def stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        self.push(self.find(_as_text(module), _as_text(name)))

    def inst(self) -> None:
        module = self.line().decode()
        maker = self.find(module, self.line().decode())
        self.push(Made(maker, tuple(self.pop_marked())))

    def obj(self) -> None:
        maker, *arguments = self.pop_marked()
        self.push(Made(maker, tuple(arguments)))

    def reduce(self) -> None:
        arguments, maker = self.pop(), self.pop()
        self.push(Made(maker, arguments))

    def newobj_ex(self) -> None:
        _, arguments, maker = self.pop(), self.pop(), self.pop()
        self.push(Made(maker, arguments))

    def build(self) -> None:
        state = self.pop()
        made = self.stack[-1]
        if isinstance(made, Made):
            made.state = state

    def set_item(self) -> None:
        value, key = self.pop(), self.pop()
        self.add_items([key, value])

    def add_items(self, items: list[Any]) -> None:
        into = self.stack[-1]
        if isinstance(into, Pairs):
            into.items += zip(items[::2], items[1::2], strict=True)
        elif not isinstance(into, Made):  # an OrderedDict made by a call; nobody asks what is in it
            raise TypeError("items for no dictionary")

    def append(self, values: list[Any]) -> None:
        into = self.stack[-1]
        if isinstance(into, list):
            into += values
        elif not isinstance(into, Made):
            raise TypeError("items for no list")

    def text_line(self) -> None:
        self.push(self.line().decode("raw-unicode-escape"))

    def string_line(self) -> None:
        quoted = self.line().strip()
        if len(quoted) < 2 or quoted[:1] != quoted[-1:] or quoted[:1] not in b"'\"":
            raise ValueError("string")
        self.push(quoted[1:-1].decode("unicode-escape").encode("latin-1"))

    def int_line(self) -> None:
        text = self.line()
        if text in (b"00", b"01"):
            return self.push(text == b"01")
        if not _INT.fullmatch(text):
            raise ValueError("int")
        return self.push(int(text.rstrip(b"L")))

    def small_long(self, width: int) -> None:
        raw = self.counted(width)
        if len(raw) > 64:
            raise Unsupported(f"the pickle holds a number of {len(raw)} bytes")
        self.push(int.from_bytes(raw, "little", signed=True))

    def tuple_of(self, n_items: int) -> None:
        self.push(tuple([self.pop() for _ in range(n_items)][::-1]))

    def get(self, index: int) -> None:
        self.push(self.memo[index])

    def put(self, index: int) -> None:
        # A dictionary: C's memo is an array, and index 2^31 makes it 16 GB.
        value = self.stack[-1]
        if value is _MARK:
            raise ValueError("mark")
        self.memo[index] = value


def _unpack(layout: str) -> Any:
    packed = struct.Struct(layout)
    return lambda m: packed.unpack(m.take(packed.size))[0]


_u1, _u2, _u4, _i4, _f8 = (_unpack(layout) for layout in ("<B", "<H", "<I", "<i", ">d"))

_STEPS: dict[bytes, Any] = {
    b"\x80": lambda m: m.take(1),  # PROTO
    b"\x95": lambda m: m.take(8),  # FRAME: a hint for readers of files
    b"(": lambda m: m.push(_MARK),
    b"0": lambda m: m.stack.pop(),
    b"1": lambda m: m.pop_marked(),
    b"2": lambda m: m.push(m.stack[-1]),
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"I": _Machine.int_line,
    b"L": _Machine.int_line,
    b"J": lambda m: m.push(_i4(m)),
    b"K": lambda m: m.push(_u1(m)),
    b"M": lambda m: m.push(_u2(m)),
    b"\x8a": lambda m: m.small_long(1),
    b"\x8b": lambda m: m.small_long(4),
    b"F": lambda m: m.push(float(m.line()[:64])),
    b"G": lambda m: m.push(_f8(m)),
    b"S": _Machine.string_line,
    b"T": lambda m: m.push(m.counted(4)),
    b"U": lambda m: m.push(m.counted(1)),
    b"B": lambda m: m.push(m.counted(4)),
    b"C": lambda m: m.push(m.counted(1)),
    b"\x8e": lambda m: m.push(m.counted(8)),
    b"\x96": lambda m: m.push(m.counted(8)),  # BYTEARRAY8
    b"V": _Machine.text_line,
    b"X": lambda m: m.push(m.counted(4).decode("utf-8", "surrogatepass")),
    b"\x8c": lambda m: m.push(m.counted(1).decode("utf-8", "surrogatepass")),
    b"\x8d": lambda m: m.push(m.counted(8).decode("utf-8", "surrogatepass")),
    b"]": lambda m: m.push([]),
    b")": lambda m: m.push(()),
    b"}": lambda m: m.push(Pairs()),
    b"\x8f": lambda m: m.push([]),  # EMPTY_SET
    b"l": lambda m: m.push(m.pop_marked()),
    b"t": lambda m: m.push(tuple(m.pop_marked())),
    b"d": lambda m: (lambda items: (m.push(Pairs()), m.add_items(items)))(m.pop_marked()),
    b"\x91": lambda m: m.push(m.pop_marked()),  # FROZENSET
    b"\x85": lambda m: m.tuple_of(1),
    b"\x86": lambda m: m.tuple_of(2),
    b"\x87": lambda m: m.tuple_of(3),
    b"a": lambda m: m.append([m.pop()]),
    b"e": lambda m: m.append(m.pop_marked()),
    b"\x90": lambda m: m.append(m.pop_marked()),  # ADDITEMS
    b"s": _Machine.set_item,
    b"u": lambda m: m.add_items(m.pop_marked()),
    b"g": lambda m: m.get(int(m.line())),
    b"h": lambda m: m.get(_u1(m)),
    b"j": lambda m: m.get(_u4(m)),
    b"p": lambda m: m.put(int(m.line())),
    b"q": lambda m: m.put(_u1(m)),
    b"r": lambda m: m.put(_u4(m)),
    b"\x94": lambda m: m.put(len(m.memo)),  # MEMOIZE
    b"c": _Machine.global_line,
    b"\x93": _Machine.stack_global,
    b"i": _Machine.inst,
    b"o": _Machine.obj,
    b"R": _Machine.reduce,
    b"\x81": _Machine.reduce,  # NEWOBJ
    b"\x92": _Machine.newobj_ex,
    b"b": _Machine.build,
}
