"""What a user sees of the library at a prompt."""

import ast
import functools
import importlib
import inspect
import pkgutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
from torch import nn

import lossgeom as lg
from lossgeom.linalg import Dense
from lossgeom.messages.extras import EXTRAS
from lossgeom.messages.wording import one_of


@pytest.fixture(scope="module")
def problem():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    batches = [(torch.randn(50, 8), torch.randint(3, (50,))) for _ in range(2)]
    return lg.Problem(model, "cross_entropy", batches)


@pytest.mark.quick
def test_dir_shows_what_is_public_and_nothing_else():
    assert set(dir(lg)) == {*lg.__all__, "__version__"}
    assert {"Problem", "Hessian", "sharpness", "metrics", "quadratic"} <= set(dir(lg))
    assert all(hasattr(lg, name) for name in dir(lg))
    with pytest.raises(AttributeError, match="module 'lossgeom' has no attribute 'Hesian'"):
        lg.Hesian  # noqa: B018


@pytest.mark.quick
def test_a_name_is_looked_up_once():
    found = lg.Hessian
    assert vars(lg)["Hessian"] is found


def test_torch_is_imported_when_it_is_needed():
    code = (
        "import sys, lossgeom, lossgeom.cli; assert 'torch' not in sys.modules; lossgeom.Hessian; "
        f"assert not {{'rich', 'tyro', *{[*EXTRAS]}}} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.quick
def test_operators_in_one_line(problem):
    H = lg.Hessian(problem)
    assert repr(H) == "Hessian(195 x 195, float32 on cpu)"
    assert repr(lg.ParameterJacobian(problem)) == "ParameterJacobian(300 x 195, float32 on cpu)"
    assert repr(2 * H) == "MatrixFree(195 x 195, float32 on cpu)"
    assert repr(Dense(torch.eye(90).double())) == "Dense(90 x 90, float64 on cpu)"


@functools.cache
def public_classes():
    """Those that rooms offer, and the library itself: name of the room, class."""
    rooms = [room for room in pkgutil.walk_packages(lg.__path__, "lossgeom.") if room.ispkg]
    found = {}
    for room in [lg, *(importlib.import_module(room.name) for room in rooms)]:
        for name in dir(room):
            offered = getattr(room, name)
            if isinstance(offered, type) and offered.__module__.startswith("lossgeom"):
                found[f"{offered.__module__}.{offered.__qualname__}"] = offered
    return found


def members(owner):
    """The public methods and properties of a class, inherited ones too, as they are defined."""
    kinds = (property, functools.cached_property, classmethod, staticmethod, types.FunctionType)
    for name in dir(owner):
        defined = inspect.getattr_static(owner, name)
        if not name.startswith("_") and isinstance(defined, kinds):
            yield name, defined


@pytest.mark.parametrize("name", public_classes())
def test_every_public_method_and_property_has_a_docstring(name):
    """Its own, or that of the method which it implements."""
    owner = public_classes()[name]
    assert inspect.getdoc(owner)
    without = [
        member
        for member, defined in members(owner)
        if not inspect.getdoc(defined) and not inspect.getdoc(getattr(owner, member))
    ]
    assert without == []


class Bare:
    def measure(self):
        return 0


class Documented:
    def measure(self):
        """Measure it."""


class Implementing(Documented):
    def measure(self):
        return 0


def test_a_missing_docstring_would_be_seen():
    ((_, bare),), ((_, implementing),) = members(Bare), members(Implementing)
    assert inspect.getdoc(bare) is None
    assert implementing.__doc__ is None
    assert inspect.getdoc(implementing) == "Measure it."


RESULTS = {
    "EigenPairs": lambda p: lg.top_eigenpairs(lg.Hessian(p), k=2),
    "SpectralDensity": lambda p: lg.spectral_density(lg.GaussNewton(p), probes=2, steps=5),
    "Diagonal": lambda p: lg.diagonal(lg.GaussNewton(p), matvecs=10),
    "Solution": lambda p: lg.conjugate_gradients(Dense(torch.eye(40)), torch.ones(40)),
    "JacobianNorms": lg.jacobian_norms,
    "LipschitzLower": lg.lipschitz_lower,
    "Bracket": lambda p: lg.local_variation(p, radius=0.1),
    "LogitChange": lambda p: lg.logit_change(p, eps=[0.1, 0.2]),
    "Robustness": lambda p: lg.robustness(p, eps=[0.1]),
    "MultiplicativeInequality": lambda p: lg.multiplicative_inequality(p)[1],
    "LayerSummand": lambda p: lg.layer_summands(p)[0],
    "PacBayes": lambda p: lg.pac_bayes(p, prior=0 * p.theta, epochs=1, samples=2),
    "SelfStabilisation": lg.self_stabilisation,
    "TaylorModel": lambda p: lg.quadratic.taylor(p, order=1),
    "TrueNetwork": lg.quadratic.network,
    "RandomModels": lambda _: lg.quadratic.random_models(50, 5, 8, a=0.4, initial_curvature=1.5),
}


@pytest.mark.parametrize("name", RESULTS)
def test_results_in_one_line(problem, name):
    shown = repr(RESULTS[name](problem))
    assert shown.startswith(f"{name}(")
    assert len(shown) < 420
    assert "tensor(" not in shown
    assert "\n" not in shown


def test_the_numbers_that_matter_are_shown(problem):
    norms = lg.jacobian_norms(problem)
    low = norms.values.min().item()
    assert f"values=(100,) from {low:.6g} to {norms.max:.6g}" in repr(norms)
    assert "converged=100 of 100" in repr(norms)
    pairs = lg.top_eigenpairs(lg.Hessian(problem), k=1)
    assert f"values=[{pairs.top.value:.6g}], vectors=(195, 1)" in repr(pairs)


def test_choices_are_sorted_and_in_english(unchecked):
    message = "expected which to be one of largest, magnitude or smallest, got 'best'"
    assert one_of(["b", "a", "c"]) == "a, b or c"
    with pytest.raises(ValueError, match=message):
        lg.top_eigenpairs(Dense(torch.eye(3)), which="best")


@pytest.mark.parametrize("offered", ["_public", "metrics", "quadratic", "bounds", "linalg"])
def test_type_checkers_of_users_see_every_name_that_is_imported_for_them(offered):
    module = importlib.import_module(f"lossgeom.{offered}")
    imported = [
        alias.asname or alias.name
        for node in ast.parse(Path(module.__file__).read_text()).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    assert {name for name in imported if not name.startswith("_")} <= set(module.__all__)
