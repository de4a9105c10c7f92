"""The native codec against its numpy definition."""

from __future__ import annotations

import logging
import os
import shutil
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tony.gradients.codec import build
from tony.gradients.codec.native import Native
from tony.gradients.codec.reference import Reference
from tony.gradients.quantizer import BLOCK, Scheme, blocks_of, stream_key

SIZES = [0, 1, 7, 511, 512, 513, 1024, 5000, 300 * BLOCK + 17]
SCHEMES = [Scheme(bits, rounding) for bits in (2, 4, 8) for rounding in ("nearest", "stochastic")]  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def natives() -> Iterator[list[Native]]:
    library = build.load()
    if library is None:
        pytest.skip("no C compiler here")
    codecs = [Native(library, 1, isa) for isa in range(3)] + [Native(library, 3)]
    yield codecs
    for codec in codecs:
        codec.close()


def vectors(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A gradient and a residual with everything that occurs: wide ranges, zeros, denormals, ties."""
    random = np.random.default_rng(seed)
    gradient = (random.standard_normal(n) * np.exp2(random.integers(-60, 60, n))).astype(np.float32)
    residual = random.standard_normal(n).astype(np.float32)
    for block in range(0, n, BLOCK):
        part = slice(block, min(n, block + BLOCK))
        kind = random.integers(0, 6)
        if kind == 0:
            gradient[part], residual[part] = 0, 0
        elif kind == 1:
            gradient[part], residual[part] = 1e-41, -3e-45
        elif kind == 2:
            residual[part] = 0
            gradient[part] = random.integers(-14, 15, part.stop - part.start) / 2
        elif kind == 3:
            gradient[part] = random.standard_normal(part.stop - part.start)
        elif kind == 4:
            gradient[part], residual[part] = -0.0, 0.0
    return gradient, residual


def encoded(
    codec: Native | Reference, gradient: np.ndarray, residual: np.ndarray, scheme: Scheme, alpha: float, beta: float
) -> list[bytes]:
    b = blocks_of(len(gradient))
    units, codes = np.zeros(b, np.float32), np.zeros(b * scheme.block_bytes, np.uint8)
    kept, stats = np.zeros(len(gradient), np.float32), np.zeros((b, 2), np.float32)
    bad = codec.encode(
        gradient, residual, scheme, alpha, beta, stream_key(1, 2, 3, 4, 0), 512, units, codes, kept, stats
    )
    unmeasured = np.zeros_like(codes)
    codec.encode(
        gradient, residual, scheme, alpha, beta, stream_key(1, 2, 3, 4, 0), 512, units, unmeasured, kept, None
    )
    assert np.array_equal(codes, unmeasured)
    return [array.tobytes() for array in (units, codes, kept, stats)] + [struct.pack("q", bad)]


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@pytest.mark.parametrize("n", SIZES)
def test_encoding_has_the_bits_of_the_reference(natives: list[Native], n: int, scheme: Scheme) -> None:
    gradient, residual = vectors(n, n)
    for alpha, beta in [(1.0, 1.0), (0.37, 0.9)]:
        wanted = encoded(Reference(), gradient, residual, scheme, alpha, beta)
        for codec in natives:
            assert encoded(codec, gradient, residual, scheme, alpha, beta) == wanted, codec.name


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("poison", [np.nan, -np.inf, 1e38, 8.3e34, 8.4e34])
def test_blocks_that_are_not_finite_have_the_bits_of_the_reference(
    natives: list[Native], bits: int, poison: float
) -> None:
    gradient, residual = vectors(2000, 9)
    gradient[600] = poison
    wanted = encoded(Reference(), gradient, residual, Scheme(bits), 1.0, 1.0)
    for codec in natives:
        assert encoded(codec, gradient, residual, Scheme(bits), 1.0, 1.0) == wanted, codec.name


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("n", SIZES)
def test_decoding_has_the_bits_of_the_reference(natives: list[Native], n: int, bits: int) -> None:
    random = np.random.default_rng(n)
    b = blocks_of(n)
    units = random.standard_normal(b).astype(np.float32)
    units[::5] = np.nan
    units[1::7] = 1e-42
    codes = random.integers(0, 256, b * Scheme(bits).block_bytes).astype(np.uint8)
    start = random.standard_normal(n).astype(np.float32)
    for accumulate in (False, True):
        wanted = start.copy()
        Reference().decode(units, codes, bits, 1 / 3, accumulate, wanted)
        for codec in natives:
            out = start.copy()
            codec.decode(units, codes, bits, 1 / 3, accumulate, out)
            assert np.array_equal(out.view(np.uint32), wanted.view(np.uint32)), codec.name


def test_nothing_as_long_as_the_vectors_is_allocated(natives: list[Native]) -> None:
    n = 400 * BLOCK
    gradient, residual = vectors(n, 1)
    scheme = Scheme(4)
    units, codes = np.zeros(400, np.float32), np.zeros(400 * scheme.block_bytes, np.uint8)
    kept = np.zeros(n, np.float32)
    tracemalloc.start()
    try:
        natives[0].encode(gradient, residual, scheme, 1.0, 1.0, 0, 0, units, codes, kept, None)
        natives[0].decode(units, codes, 4, 1.0, True, kept)
        assert tracemalloc.get_traced_memory()[1] < 20_000
    finally:
        tracemalloc.stop()


def test_a_vector_with_gaps_is_refused(natives: list[Native]) -> None:
    with pytest.raises(ValueError, match="contiguous"):
        natives[0].decode(
            np.zeros(1, np.float32), np.zeros(512, np.uint8), 8, 1.0, False, np.zeros(20, np.float32)[::2]
        )


def test_without_a_compiler_numpy_is_used_and_one_sentence_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with caplog.at_level(logging.INFO):
        assert build.load() is None
    assert len(caplog.records) == 1 and "numpy" in caplog.text


def test_a_compiler_that_fails_is_not_fatal(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CC", shutil.which("false") or "false")
    assert build.load() is None
    assert len(caplog.records) == 1


def test_a_library_that_others_can_write_is_not_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    library = tmp_path / "codec.so"
    library.write_bytes(b"not ours")
    library.chmod(0o722)
    assert not build._is_ours(library)
    library.chmod(0o700)
    assert build._is_ours(library)


def test_what_killed_compilations_left_is_removed_and_what_runs_is_not(tmp_path: Path) -> None:
    command = build.compiler()
    if command is None:
        pytest.skip("no C compiler here")
    old, fresh = tmp_path / "codec-1old.partial", tmp_path / "codec-1new.partial"
    for partial in (old, fresh):
        partial.write_bytes(b"half")
    os.utime(old, (1, 1))
    build.compile_to(tmp_path / "codec-1.so", command, (*build.FLAGS, "-O0"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["codec-1.so", "codec-1new.partial"]


@pytest.mark.parametrize("sanitizer", ["address", "undefined"])
def test_random_bytes_give_the_bits_of_the_reference_under_sanitizers(sanitizer: str, tmp_path: Path) -> None:
    command = build.compiler()
    if command is None:
        pytest.skip("no C compiler here")
    library, runtime = tmp_path / "codec.so", {"address": "libasan.so", "undefined": "libubsan.so"}[sanitizer]
    found = subprocess.run([*command, f"-print-file-name={runtime}"], capture_output=True, text=True, timeout=30)
    if not Path(found.stdout.strip()).is_file():
        pytest.skip(f"the compiler brings no {runtime}")
    flags = (*build.FLAGS, "-O1", "-g", f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all")
    build.compile_to(library, command, flags)
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("gradients_fuzz.py")), str(library), "60"],
        env=os.environ
        | {"LD_PRELOAD": str(Path(found.stdout.strip()).resolve()), "ASAN_OPTIONS": "detect_leaks=0"}
        | {"PYTHONPATH": str(Path(__file__).resolve().parents[2]), "PYTHONMALLOC": "malloc"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0 and done.stdout.strip() == "equal", done.stderr[-3000:]
