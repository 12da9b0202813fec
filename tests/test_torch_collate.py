"""`sharedmem.torch` without torch, and `collate` without workers."""

import collections
import pickle
import sys

import numpy as np
import pytest
from support import check_python, dumps

import sharedmem

Pair = collections.namedtuple("Pair", ["first", "second"])


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.fixture
def default(torch):
    return pytest.importorskip("torch.utils.data").default_collate


# -- without torch


@pytest.mark.parametrize("call", ["collate([1])", "install()"])
def test_without_torch_the_error_names_the_extra(call):
    printed = check_python(f"""
        import sys
        sys.modules["torch"] = None  # as if it were not installed
        import sharedmem
        try:
            sharedmem.torch.{call}
        except ImportError as error:
            print(error.name, error)
    """)
    assert printed.startswith("torch ")
    assert "numpy-sharedmem[torch]" in printed


def test_uninstall_needs_no_torch():
    check_python("import sys; sys.modules['torch'] = None; import sharedmem; sharedmem.torch.uninstall()")


def test_a_broken_torch_says_what_is_broken(tmp_path):
    (tmp_path / "torch.py").write_text("import no_such_module_of_torch")
    printed = check_python(
        """
        import sys; sys.path.insert(0, sys.argv[1])
        import sharedmem
        try:
            sharedmem.torch.install()
        except ImportError as error:
            print(error)
        """,
        tmp_path,
    )
    assert "no_such_module_of_torch" in printed


def test_the_name_of_torch_stays_that_of_torch():
    """Neither `import *` nor an import within the package takes the module for torch."""
    printed = check_python("""
        import sys
        from sharedmem import *
        import sharedmem
        print("torch" in globals(), "torch" in sys.modules, "sharedmem.torch" in sys.modules)
        print(sharedmem.torch.__name__, "torch" in sys.modules)
    """)
    assert printed.split() == ["False", "False", "False", "sharedmem.torch", "False"]


def test_a_version_without_the_hooks_is_left_alone(tmp_path):
    for name in ("", "utils", "utils/data", "utils/data/_utils", "multiprocessing"):
        (tmp_path / "torch" / name).mkdir()
        (tmp_path / "torch" / name / "__init__.py").write_text("")
    data = tmp_path / "torch/utils/data"
    (data / "__init__.py").write_text("def default_collate(batch): return ['of torch', *batch]")
    (data / "_utils/collate.py").write_text("")
    (tmp_path / "torch/__init__.py").write_text("__version__ = '0.1'")
    printed = check_python(
        """
        import sys, warnings; sys.path.insert(0, sys.argv[1])
        import sharedmem
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            sharedmem.torch.install()
            batches = sharedmem.torch.collate([1, 2]), sharedmem.torch.collate([1, 2])
        print(*batches, *(f"{each.category.__name__}: {each.message}" for each in said), sep="|")
        """,
        tmp_path,
    )
    *batches, importing, installing, collating = printed.split("|")
    assert batches == ["['of torch', 1, 2]"] * 2
    assert installing.startswith("RuntimeWarning: sharedmem.torch does not know torch 0.1")
    assert "get_worker_info is missing" in installing
    assert importing.startswith("RuntimeWarning: sharedmem does not know this version of torch.multi")
    assert collating.startswith("RuntimeWarning: batches travel as torch sends them: sharedmem does not know")


# -- collate


def same(got, expected, torch):
    """Whether two batches are of the same types, and have the same numbers."""
    if isinstance(expected, torch.Tensor):
        assert type(got) is type(expected)
        assert (got.dtype, got.shape, got.stride()) == (expected.dtype, expected.shape, expected.stride())
        assert torch.equal(got, expected)
    elif isinstance(expected, collections.abc.Mapping):
        assert type(got) is type(expected)
        assert list(got) == list(expected)
        for key in expected:
            same(got[key], expected[key], torch)
    elif isinstance(expected, (list, tuple)):
        assert type(got) is type(expected)
        assert len(got) == len(expected)
        for mine, theirs in zip(got, expected, strict=True):
            same(mine, theirs, torch)
    else:
        assert got == expected


def tensors(batch, torch):
    if isinstance(batch, torch.Tensor):
        return [batch]
    if isinstance(batch, collections.abc.Mapping):
        batch = list(batch.values())
    return [t for each in batch for t in tensors(each, torch)] if isinstance(batch, (list, tuple)) else []


def in_arena(tensor, torch):
    return sharedmem.is_shared(tensor.view(torch.uint8).numpy())


def samples(torch):
    return {
        "tensors": [torch.arange(12.0).view(3, 4) + i for i in range(5)],
        "not contiguous": [torch.arange(12).view(3, 4).T for _ in range(3)],
        "scalars": [torch.tensor(i) for i in range(5)],
        **{
            str(dtype): [torch.ones(3, 4).to(dtype) for _ in range(3)]
            for dtype in (torch.bool, torch.int8, torch.float16, torch.bfloat16, torch.complex64)
        },
        "conjugate": [torch.tensor([1 + 2j]).conj(), torch.tensor([3 + 4j])],
        "expanded": [torch.ones(1).expand(4) for _ in range(3)],
        "arrays": [np.arange(6.0).reshape(2, 3) for _ in range(3)],
        "shared arrays": [sharedmem.full((2, 3), i) for i in range(3)],
        "NumPy's numbers": [np.float32(i) for i in range(3)],
        "ints": [1, 2, 3],
        "floats": [1.5, 2.5],
        "bools": [True, False],
        "text": ["a", "b"],
        "bytes": [b"a", b"b"],
        "dicts": [{"a": i, "b": {"c": torch.ones(2)}} for i in range(3)],
        "ordered": [collections.OrderedDict(z=1, a=2.0) for _ in range(2)],
        "named": [Pair(torch.ones(2) * i, i) for i in range(3)],
        "tuples": [(i, [float(i), "x"]) for i in range(3)],
        "lists": [[torch.ones(2), np.ones(3)] for _ in range(3)],
        "one": [torch.ones(3)],
    }


def test_collates_as_torch_does_in_shared_memory(torch, default):
    for name, batch in samples(torch).items():
        got = sharedmem.torch.collate(batch)
        same(got, default(batch), torch)
        for tensor in tensors(got, torch):
            assert in_arena(tensor, torch), name


def test_what_is_left_to_torch(torch, default):
    leaf = torch.ones(3, requires_grad=True)
    kinds = {
        "needs a gradient": [leaf, leaf * 2],
        "classes differ": [torch.ones(3), torch.nn.Parameter(torch.ones(3), requires_grad=False)],
        "types differ": [torch.ones(3), torch.ones(3).double()],
        "nothing in it": [torch.empty(0, 4)] * 2,
    }
    for name, batch in kinds.items():
        got = sharedmem.torch.collate(batch)
        same(got.detach(), default(batch).detach(), torch)
        assert got.requires_grad == default(batch).requires_grad
        assert not in_arena(got.detach(), torch), name
    sharedmem.torch.collate(kinds["needs a gradient"]).sum().backward()
    assert leaf.grad is not None
    meta = sharedmem.torch.collate([torch.empty(3, device="meta")] * 2)
    assert (meta.device.type, meta.shape) == ("meta", (2, 3))


def test_samples_of_a_class_of_the_program(torch, default):
    """Its class says what a stack of them is: images of torchvision become a plain tensor."""

    class Keeps(torch.Tensor):
        pass

    class Becomes(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            with torch._C.DisableTorchFunctionSubclass():
                made = function(*args, **kwargs or {})
            return made.as_subclass(torch.Tensor) if isinstance(made, cls) else made

    for cls, expected in ((Keeps, Keeps), (Becomes, torch.Tensor)):
        batch = [torch.full((3,), float(i)).as_subclass(cls) for i in range(3)]
        got = sharedmem.torch.collate(batch)
        assert type(got) is type(default(batch)) is expected
        assert torch.equal(got, default(batch))
        assert in_arena(got.as_subclass(torch.Tensor), torch)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda torch: [torch.ones(3), torch.ones(4)], RuntimeError),
        (lambda torch: [torch.eye(3).to_sparse()] * 2, RuntimeError),
        (lambda torch: [object(), object()], TypeError),
        (lambda torch: [np.array(["a"])] * 2, TypeError),
        (lambda torch: [[1, 2], [1]], RuntimeError),
        (lambda torch: [torch.ones(3), 4], TypeError),
        (lambda torch: [], IndexError),
    ],
    ids=["sizes", "sparse", "objects", "text arrays", "lengths", "kinds", "nothing"],
)
def test_errors_are_those_of_torch(make, error, torch, default):
    batch = make(torch)
    with pytest.raises(error) as theirs:
        default(batch)
    with pytest.raises(error) as ours:
        sharedmem.torch.collate(batch)
    assert str(ours.value) == str(theirs.value)
    assert type(ours.value) is type(theirs.value)


def test_types_that_a_program_has_added(torch, default, monkeypatch):
    class Point:
        def __init__(self, x):
            self.x = x

    def points(batch, *, collate_fn_map=None):
        module = sys.modules["torch.utils.data._utils.collate"]
        return "points", module.collate([each.x for each in batch], collate_fn_map=collate_fn_map)

    functions = sys.modules["torch.utils.data._utils.collate"].default_collate_fn_map
    monkeypatch.setitem(functions, Point, points)
    name, made = sharedmem.torch.collate([Point(torch.ones(3)), Point(torch.zeros(3))])
    assert name == "points"
    assert in_arena(made, torch)
    assert functions[torch.Tensor] is sys.modules["torch.utils.data._utils.collate"].collate_tensor_fn


def test_a_batch_is_freed_with_its_last_view(torch):
    before = sharedmem.stats()["live_bytes"]
    batch = sharedmem.torch.collate([torch.ones(1 << 20)] * 2)
    part = batch[1, ::2]
    del batch
    assert sharedmem.stats()["live_bytes"] >= before + (8 << 20)
    assert (part == 1).all()
    del part
    assert sharedmem.stats()["live_bytes"] == before


def test_without_room_the_batch_is_made_by_torch():
    pytest.importorskip("torch")
    printed = check_python("""
        import contextlib, warnings, torch, sharedmem
        kept = []
        for size in (1 << 30, 1 << 24):  # until all memory is promised to arrays that are never written
            with contextlib.suppress(MemoryError):
                while True:
                    kept.append(sharedmem.empty(size, "u1", populate=False))
        batch = [torch.ones(1 << 20)] * 8
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            made = [sharedmem.torch.collate(batch) for _ in range(2)]
        assert all(torch.equal(each, torch.ones(8, 1 << 20)) for each in made)
        assert not any(sharedmem.is_shared(each.numpy()) for each in made)
        print(len(said), said[0].category.__name__, said[0].message)
    """)
    assert printed.startswith("1 RuntimeWarning batches travel as torch sends them: cannot ")
    assert str(32 << 20) in printed


def test_a_default_device_of_the_program(torch):
    """Tensors that travel by handle are on the CPU, whatever new ones are."""
    tensor = torch.from_numpy(np.asarray(sharedmem.ones(1000)))
    with torch.device("meta"):
        got = pickle.loads(dumps(tensor))
        batch = sharedmem.torch.collate([tensor, tensor])
    assert torch.equal(got, tensor)
    assert in_arena(batch, torch)
