"""The benchmarks run, tell right from wrong, and write what they say. No test looks at a time."""

import json
import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

import lossgeom as lg
from benchmarks import (
    block_sharpness,
    checks,
    device,
    device_checks,
    device_settings,
    device_speed,
    first,
    first_cases,
    kronecker,
    layers,
    lipschitz,
    plain,
    profile,
    quadratic,
    residual,
    run,
    settings,
    table,
    tasks,
    timing,
    tracking,
)
from benchmarks.cases import CASES, LENGTH, VOCABULARY, Case, draw, text, trained
from benchmarks.device_problems import Check, perceptron
from benchmarks.input_output import InputOutput, wide
from benchmarks.peers import PEERS, Choices, Pairs, Peer, Quadrature, Steps, jacobians
from benchmarks.tasks import TASKS, Bench
from benchmarks.tracking_runs import Run, cnn_case, edge_case
from lossgeom.estimate import Estimate
from lossgeom.lab.models import gpt

KEYS = {"peer", "name", "variant", "note", "version", "status"}
TIMES = {"gradients", "low", "high", "seconds", "repeats", "error"}


def tiny() -> Case:
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(draw(7, *p.shape) / 2)
    x, y = draw(3, 12, 5), torch.arange(12) % 3
    batches = list(zip(x.split([8, 4]), y.split([8, 4]), strict=True))
    return trained(Case("tiny", "MLP 5-6-3", model.eval(), batches, products=3, patience=60), 5)


def doubled(case: Case):
    return lambda v: 2 * plain.hessian_product(case, v)


def raising(case: Case):
    raise RuntimeError("no such function\nin this version")


def wrong_top(case: Case, k: int, setting: None) -> Pairs:
    found = PEERS["lossgeom"].top(case, k, setting)
    return Pairs(1.01 * found.values, found.vectors)


def plain_density(case, probes, steps, spectrum):
    nodes = torch.linspace(*spectrum, steps).expand(probes, -1)
    return Quadrature(nodes, torch.full_like(nodes, 1 / steps))


WRONG = Peer("wrong", hessian=doubled, top=wrong_top)
RAISING = Peer("raising", hessian=raising)
RAISING_DENSITY = Peer("raising", density=raising)
PLAIN_DENSITY = Peer("plain", density=plain_density)
ABSENT = Peer("absent", module="no_such_module_anywhere", hessian=doubled)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The results of a race of right, wrong, raising and absent competitors."""
    some = {key: PEERS[key] for key in ("lossgeom", "lossgeom_without_memory", "double_backward")}
    peers = {**some, "wrong": WRONG, "raising": RAISING, "absent": ABSENT}
    out = tmp_path_factory.mktemp("results")
    file = run.run_case(tiny(), ["hvp", "gauss_newton", "block", "top1"], peers, 2, out)
    return out, json.loads(file.read_text())


def statuses(record, task):
    return {entry["peer"] + entry["variant"]: entry["status"] for entry in record["tasks"][task]}


def test_what_is_written(written):
    _, record = written
    assert record["schema"] == run.SCHEMA
    assert record["case"]["parameters"] == 57
    assert {"cpu", "cores", "torch_threads", "python", "versions"} <= set(record["machine"])
    assert {"date", "commits", "repeats", "quick", "minutes"} <= set(record)
    for task, entries in record["tasks"].items():
        for entry in entries:
            assert set(entry) >= KEYS
            assert entry["status"] == "error" or set(entry) >= TIMES
            if entry["status"] == "right":
                assert entry["repeats"] == 2 or task == "top1"
                assert 0 < entry["low"] <= entry["gradients"] <= entry["high"]


def test_right_wrong_and_raising(written):
    _, record = written
    right = dict.fromkeys(["lossgeom", "lossgeom_without_memory", "double_backward"], "right")
    assert statuses(record, "hvp") == {**right, "wrong": "wrong", "raising": "error"}
    assert statuses(record, "gauss_newton") == right
    assert statuses(record, "top1")["wrong"] == "wrong"
    assert statuses(record, "top1")["lossgeom"] == "right"
    assert statuses(record, "block")["lossgeomsingle"] == "right"
    errors = {entry["peer"]: entry.get("error") for entry in record["tasks"]["hvp"]}
    assert errors["wrong"] == pytest.approx(1, abs=1e-3)
    assert errors["lossgeom"] < 1e-5
    messages = [entry.get("message") for entry in record["tasks"]["hvp"]]
    assert "RuntimeError: no such function" in messages


def test_the_tables(written, tmp_path):
    out, _ = written
    page = tmp_path / "page.md"
    page.write_text(f"before\n{table.BEGIN}\nwhat was there\n{table.END}\nafter\n")
    for _ in range(2):
        assert table.main(["--results", str(out), "--into", str(page)]) == 0
        text = page.read_text()
        assert text.startswith(f"before\n{table.BEGIN}")
        assert text.endswith(f"{table.END}\nafter\n")
        assert "what was there" not in text
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if "|" in line}
    assert "~~" in rows["wrong"]
    assert "raises" in text
    assert "**" not in rows["wrong"]
    assert "*advantage*" in rows


def test_a_page_without_marks(written, tmp_path, capsys):
    out, _ = written
    assert table.main(["--results", str(out), "--into", str(tmp_path / "none.md")]) == 2
    assert "each once" in capsys.readouterr().err
    assert table.main(["--results", str(tmp_path)]) == 2
    assert "benchmarks.run first" in capsys.readouterr().err


def test_a_wrong_competitor_is_never_the_fastest():
    entries = [
        {"peer": "lossgeom", "status": "right", "gradients": 2.0},
        {"peer": "wrong", "status": "wrong", "gradients": 1.0},
        {"peer": "other", "status": "right", "gradients": 3.0},
    ]
    assert table._fastest(entries) == 2.0
    assert table._advantage(entries) == 1.5
    assert table._advantage(entries[:2]) is None


def test_the_reference():
    """Against the dense matrices, by another kind of differentiation."""
    case = tiny().copy(torch.float64)
    theta = plain.flat(case.parameters).detach()
    names = [name for name, _ in case.model.named_parameters()]

    def outputs(theta, x):
        values = dict(zip(names, plain.pieces(case, theta), strict=True))
        return torch.func.functional_call(case.model, values, x)

    def loss(theta):
        return sum(share * case.criterion(outputs(theta, x), y) for x, y, share in case.weighted())

    H, v = torch.func.hessian(loss)(theta), plain.unit_vectors(case, 1)[0]
    assert torch.allclose(plain.hessian_product(case, v), H @ v, atol=1e-12)
    reference = plain.Reference(case)
    assert torch.allclose(reference.values, torch.linalg.eigvalsh(H).flip(0)[:10], rtol=1e-6)
    G = torch.zeros_like(H)
    for x, y, share in case.weighted():
        J = torch.func.jacrev(outputs)(theta, x).flatten(0, 1)
        f = outputs(theta, x).detach().flatten()
        at = partial(lambda f, y: case.criterion(f.view(-1, 3), y), y=y)
        G += share * J.T @ torch.func.hessian(at)(f) @ J
    assert torch.allclose(plain.gauss_newton_product(case, v), G @ v, atol=1e-12)


def test_densities_are_checked():
    case = tiny()
    forms = plain.Reference(case).quadratic_forms
    H = plain.Reference(case).exact
    eigenvalues = torch.linalg.eigvalsh(
        torch.stack([plain.hessian_product(H, e) for e in torch.eye(57).double()])
    )
    exact = Quadrature(eigenvalues[None], torch.full((1, 57), 1 / 57).double())
    largest = eigenvalues.flip(0)[:10]
    check = partial(checks.density, 57, largest, forms, 0.15)
    assert check(exact)["status"] == "right"
    for nodes, weights in (
        (1.1 * exact.nodes, exact.weights),
        (exact.nodes, 0.9 * exact.weights),
        (exact.nodes, torch.eye(57)[-1:].double()),
        (exact.nodes * torch.nan, exact.weights),
    ):
        assert check(Quadrature(nodes, weights))["status"] == "wrong"
    assert check(exact)["products"] == 57
    assert check(Quadrature(exact.nodes, exact.weights, 3, 5))["products"] == 5


def test_the_probes_of_an_accuracy():
    """They keep the error of every number within it, and one fewer does not."""
    for outliers in (0, 4, 9, 12):
        for accuracy in (0.15, 0.3):
            probes = checks.probes_for(outliers, accuracy)

            def worst(r, q=outliers):
                return max(math.sqrt(2 * (N - q) / r) / N for N in range(max(9, q), 100))

            assert worst(probes) <= accuracy
            assert probes == 1 or worst(probes - 1) > accuracy


def test_a_race_of_densities(tmp_path, monkeypatch):
    """Each takes the probes that it needs, and each accuracy has tables of its own."""
    monkeypatch.setattr(tasks, "STEPS", 5)  # of few, so that nothing is exact
    peers = {"lossgeom": PEERS["lossgeom"], "plain": PLAIN_DENSITY, "raising": RAISING_DENSITY}
    file = run.run_case(tiny(), ["density"], peers, 1, tmp_path)
    entries = json.loads(file.read_text())["tasks"]["density"]
    found = {(e["peer"], e["accuracy"]): e for e in entries}
    assert found["plain", 0.3]["products"] == 3 * 5
    assert found["plain", 0.15]["products"] == 10 * 5
    assert found["lossgeom", 0.3]["products"] <= 15
    assert found["raising", 0.3]["status"] == "error"
    text = table.everything(tmp_path)
    titles = [line for line in text.splitlines() if line.startswith("####")]
    assert titles == [f"#### {table.TITLES['density']} {accuracy} %" for accuracy in (15, 30)]
    assert text.count("Hessian products of each:") == 2
    assert text.count("| raising | raises |") == 2
    assert "| plain | 50 |" in text


def test_the_fewest_steps():
    def found(needed, patience=100):
        steps = Steps(lambda k: 4, lambda k, n: n)
        check = lambda n: {"status": "right" if n >= needed else "wrong"}  # noqa: E731
        return settings.best_setting(steps, lambda n: (1.0, n), check, 1, patience)

    assert found(3).value == 4
    assert found(7).value == 7
    assert 40 <= found(40).value <= 44
    assert "wrong" in found(200).words


def test_a_choice_that_raises_is_not_the_fastest():
    def attempt(value):
        return 1 / value, value

    found = settings.best_setting(Choices((0, 1, 2), "{} at a time".format), attempt, None, 1, 1)
    assert (found.value, found.words) == (2, "2 at a time")


def test_amortising():
    assert timing.steady([4.0, 1.0, 2.0, 1.0], 30) == (4 + 1 + 2 + 1 + 26 * 1) / 30


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(run, "CASES", {"tiny": lambda quick: tiny()})
    chosen = ["--cases", "tiny", "--tasks", "hvp", "--peers", "lossgeom,double_backward"]
    assert run.main([*chosen, "--quick", "--out", str(tmp_path)]) == 0
    assert "right" in capsys.readouterr().err
    assert len(list(tmp_path.glob("*/tiny.json"))) == 1
    assert run.main([*chosen, "--tasks", "nothing", "--out", str(tmp_path)]) == 2
    assert "expected --tasks from hvp" in capsys.readouterr().err


def test_every_competitor_says_how_to_install_it():
    for peer in PEERS.values():
        assert peer.module in (None, "lossgeom") or peer.install.startswith("pip install")
    assert set(TASKS) == set(table.TITLES)
    assert set(CASES) == {"mlp", "vgg", "resnet_eval", "resnet_train", "gpt"}
    assert Bench(tiny(), None, {"a": ABSENT}, 1).offering(lambda peer: peer.hessian) == {}


def test_the_profile_adds_up(tmp_path):
    """The parts and the table of them; a replayed linear layer multiplies twice as often."""
    file = run.run_case(tiny(), ["profile"], {"lossgeom": PEERS["lossgeom"]}, 2, tmp_path)
    entries = {e["variant"]: e for e in json.loads(file.read_text())["tasks"]["profile"]}
    assert {profile.FIRST, profile.NEXT, profile.ARITHMETIC} < set(entries)
    assert all(e["gradients"] > 0 and e["status"] == "part" for e in entries.values())
    assert 1 < entries[profile.ARITHMETIC]["gradients"] <= 2
    assert profile.NEXT in table.everything(tmp_path)


def test_tasks_that_are_not_run_again_stay(tmp_path):
    file = tmp_path / "a.json"
    case, machine = {"gradient_seconds": 1.0, "examples": 3}, {"cpu": "a", "load_before": 0.5}
    before = {"schema": 1, "repeats": 5, "quick": False, "case": case, "machine": machine}
    file.write_text(json.dumps({**before, "commits": {"hvp": "a"}, "tasks": {"hvp": []}}))
    now = {**before, "case": {**case, "gradient_seconds": 2.0}, "machine": {**machine}}
    now["machine"]["load_before"] = 0.1
    assert run.others(file, now) == ({"hvp": "a"}, {"hvp": []})
    assert run.others(file, {**now, "repeats": 4}) == ({}, {})
    assert run.others(file, {**now, "case": {**case, "examples": 4}}) == ({}, {})
    assert run.others(tmp_path / "b.json", now) == ({}, {})


def test_jacobians_right_and_wrong(tmp_path):
    names = ("lossgeom", "jacrev", "jacrev_gram", "rows_gram", "jacobian_power_iteration")
    off = Peer("off", jacobian=lambda function, _: 1.01 * jacobians.row_by_row(function, None))
    peers = {**{name: PEERS[name] for name in names}, "off": off, "absent": ABSENT}
    file = run.run_case(tiny(), ["jacobian", "jacobian_wide"], peers, 1, tmp_path)
    record = json.loads(file.read_text())
    part = {"lossgeom" + profile.ARITHMETIC: "part"}
    for task in ("jacobian", "jacobian_wide"):
        assert statuses(record, task) == {**dict.fromkeys(names, "right"), "off": "wrong", **part}
        assert all("megabytes" in e for e in record["tasks"][task] if e["status"] == "right")
    assert "Peak memory, MB" in table.everything(tmp_path)


def test_the_reference_for_jacobians():
    for function in (InputOutput(tiny()), wide(tiny())):
        exact = function.plain(torch.float64)
        x = torch.cat(exact.inputs()).double()
        J = torch.func.vmap(torch.func.jacrev(exact.one))(x)
        right = torch.linalg.matrix_norm(J, ord=2)
        assert torch.allclose(plain.jacobian_norms(function), right, rtol=1e-8)
    assert J.shape == (8, 1_000, 5)
    in_training = replace(tiny(), model=tiny().model.train())
    assert TASKS["jacobian_wide"](Bench(in_training, None, PEERS, 1)) == {}


def test_jacobians_in_embeddings(monkeypatch):
    model = gpt(VOCABULARY, LENGTH, layers=1, width=8, heads=2).eval()
    case = Case("gpt", "", model, text(2), loss="token_cross_entropy", few=1)
    whole, last = InputOutput(case), wide(case)
    logits = model(case.batches[0][0])
    assert torch.equal(whole.outputs(whole.inputs()[0]), logits.flatten(1))
    assert torch.allclose(last.outputs(last.inputs()[0]), logits[:1, -1])
    right = plain.jacobian_norms(last)
    assert checks.norms(right, PEERS["lossgeom"].jacobian(last, None))["status"] == "right"
    assert checks.norms(right, torch.tensor([torch.nan]))["status"] == "wrong"
    monkeypatch.setattr(jacobians, "ALLOWED", 0)
    with pytest.raises(MemoryError, match=r"refused: 1,000 backward passes"):
        jacobians.row_by_row(last, None)


def test_a_case_without_a_head():
    with pytest.raises(TypeError, match="expected tiny to end in a linear layer"):
        wide(replace(tiny(), model=nn.Sequential(nn.Linear(5, 3), nn.Tanh())))


def test_the_table_of_lipschitz_bounds(tmp_path, monkeypatch, capsys):
    case = lipschitz.Case(nn.Tanh, width=4, depth=1, radius=0.1)
    sizes = {"STEPS": 2, "MEASURED": 2, "FEW": 1, "BLOCK_RADII": [0.01]}
    for name, small in {"cases": lambda: [case], **sizes}.items():
        monkeypatch.setattr(lipschitz, name, small)
    page = tmp_path / "page.md"
    marks = lipschitz.BEGIN, "old", lipschitz.END, lipschitz.BLOCK_BEGIN, "old", lipschitz.BLOCK_END
    page.write_text("\n".join(["before", *marks, "after"]))
    assert lipschitz.main(["--into", str(page)]) == 0
    lines = page.read_text().splitlines()
    cells = [cell.strip() for cell in lines[5].strip("|").split("|")]
    numbers = dict(zip(lipschitz.HEAD, cells, strict=True))
    assert float(numbers["at the data"]) <= float(numbers["local"]) <= float(numbers["global"])
    assert 0 < float(numbers["tightness"]) <= 1
    assert "old" not in lines
    page.write_text("no marks")
    assert lipschitz.main(["--into", str(page)]) == 2
    assert "each once" in capsys.readouterr().err


def test_second_order_regression_models(written, tmp_path, capsys):
    """All competitors take the same steps, and the table stands below the others."""
    out, _ = written
    sizes = ["--runs", "17", "--outputs", "3", "--parameters", "5", "--steps", "30"]
    assert quadratic.main([*sizes, "--repeats", "1", "--out", str(out)]) == 0
    file = next(out.glob(f"*/{quadratic.FOLDER}/{quadratic.FILE}"))
    laps = json.loads(file.read_text())["laps"]
    assert set(quadratic.LOOPS) < set(laps)
    assert all(lap["status"] == "right" and lap["gradients"] > 0 for lap in laps.values())
    assert quadratic._verdict(1e-6)["status"] == "wrong"
    text = table.everything(out)
    assert text.index("One Hessian product") < text.index("17 runs of 30 steps")
    assert "loop, torch, einsum" in text


def test_the_cost_of_watching_a_run(tmp_path, monkeypatch, capsys):
    """Every way to follow the sharpness is run, and right; the page gets the tables."""
    monkeypatch.setattr(tracking, "runs", lambda quick, before: [Run("tiny", tiny(), 0.1, before)])
    monkeypatch.setattr(tracking, "watching", partial(tracking.watching, steps=5, rounds=1))
    page = tmp_path / "page.md"
    page.write_text(f"before\n{tracking.BEGIN}\nold\n{tracking.END}\nafter\n")
    sizes = ["--steps", "3", "--before", "1", "--examples", "10"]
    monkeypatch.setattr(tracking, "thresholds", lambda examples: f"{examples} examples")
    assert tracking.main([*sizes, "--into", str(page)]) == 0
    text = page.read_text()
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| ")]
    ways = {row[0].strip(): row for row in rows}
    assert {*tracking.followers(tiny())} < set(ways)
    assert all(float(ways[name][4]) <= 1e-2 for name in tracking.followers(tiny()))
    assert "10 examples" in text
    assert "old" not in text
    page.write_text("no marks")
    assert tracking.main([*sizes, "--into", str(page)]) == 2
    assert "each once" in capsys.readouterr().err


def test_the_distances_of_kronecker_products(tmp_path, monkeypatch, capsys):
    """All models are in the first table, their layers in one of their own."""
    monkeypatch.setitem(kronecker.CASES, "tiny", lambda quick: tiny())
    monkeypatch.setitem(kronecker.EXAMPLES, "tiny", 12)
    page = tmp_path / "page.md"
    page.write_text(f"{kronecker.BEGIN}\n{kronecker.END}\n")
    assert kronecker.main(["--cases", "tiny", "--into", str(page)]) == 0
    rows = [line.split("|")[1:-1] for line in page.read_text().splitlines() if "|" in line]
    medians, traces, layers = rows[2], rows[5], rows[8:]
    assert medians[0].strip() == traces[0].strip() == "tiny"
    assert all(float(ratio) > 0.9 for ratio in medians[1:-1])
    assert traces[-4].strip() == "1.00"  # of EKFAC, whose diagonal is that of the block
    assert [row[0].strip() for row in layers] == ["`0`", "`2`"]
    assert layers[0][1].strip() == "6 x 5"
    assert kronecker.cell(Estimate(0.5, stderr=0.01, converged=False)) == "0.500 ± 0.010?"
    capsys.readouterr()


def test_sequences_are_cut_to_their_first_tokens():
    with torch.random.fork_rng(devices=[]):
        case = Case(
            "gpt",
            "GPT",
            gpt(VOCABULARY, LENGTH, 1, 4, 1).eval(),
            text(2),
            loss="token_cross_entropy",
        )
    ((x, y),) = kronecker.problem(case, 1).batches
    assert x.shape == y.shape == (1, kronecker.TOKENS)


def test_the_runs_that_are_watched():
    assert "P = 5,017" in tracking.thresholds(10)
    assert "microseconds" in tracking.watching(steps=5, rounds=1)
    for case in (cnn_case(True), edge_case(True)):
        (x, y), tally = case.batches[0], tracking.Tally()
        assert case.criterion(case.model(x), y).isfinite()
    for found, right in ((Estimate(1.0, stderr=0.1, predicted=True), 1.05), (Estimate(2.0), 1.0)):
        tally.add(found, right, seconds=3.0, unit=2.0)
    assert tally.row("name")[1:] == ["1.50", "0.00", "50%", "1.0e+00", "5.2e-01", "100%"]


def test_the_parts_of_a_transformer_in_training(capsys):
    """A line of JSON for each measurement, and a row for each matrix and step."""
    sizes = ["--layers", "1", "--width", "8", "--examples", "3", "--batch-size", "1"]
    steps = ["--steps", "0", "2", "--seeds", "2", "--matvecs", "2"]
    assert block_sharpness.main([*sizes, *steps]) == 0
    lines = capsys.readouterr().out.splitlines()
    measured = [json.loads(line) for line in lines if line.startswith("{")]
    assert len(measured) == 2 * 2 * 2
    assert {*block_sharpness.PARTS} < set(measured[0])  # and nothing is left over
    assert not {"other", "head"} & set(measured[0])
    assert measured[0]["loss"] > measured[2]["loss"]
    rows = [line for line in lines if line.startswith("| gauss_newton | ")]
    assert [row.split(" | ")[1] for row in rows] == ["0", "2"]
    assert all(row.count(" < ") == len(block_sharpness.PARTS) - 1 for row in rows)


def test_layers_and_bounds(tmp_path, monkeypatch):
    """Every competitor runs and is right, and the page gets the tables."""
    monkeypatch.setattr(layers, "CASES", {"tiny": lambda quick: tiny()})
    monkeypatch.setattr(layers, "memory", lambda quick: "memory")
    page = tmp_path / "page.md"
    page.write_text(f"{layers.BEGIN}\nold\n{layers.END}\n")
    sizes = ["--cases", "tiny", "--repeats", "1", "--k", "2", "--epochs", "1", "--quick"]
    assert layers.main([*sizes, "--into", str(page)]) == 0
    rows = [line.split("|")[1:-1] for line in page.read_text().splitlines() if line[:2] == "| "]
    cells = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}
    assert float(cells["exact"][-1]) < 1e-4
    assert cells["lossgeom"][-1] == cells["curvlinops + eigsh"][-1] == "right"
    assert {f'basis="{basis}"' for basis in layers.BASES} < set(cells)


def test_the_table_of_residual_networks(tmp_path, monkeypatch):
    for name, small in {"CHANNELS": (4, 4), "STEPS": (0,), "WARM": 2, "RADII": (0.001,)}.items():
        monkeypatch.setattr(residual, name, small)
    page = tmp_path / "page.md"
    page.write_text(f"{residual.BEGIN}\nold\n{residual.END}\n")
    assert residual.main(["--into", str(page)]) == 0
    cells = [cell.strip() for cell in page.read_text().splitlines()[4].strip("|").split("|")]
    numbers = dict(zip(residual.HEAD, cells, strict=True))
    assert float(numbers["largest found"]) <= float(numbers["local"]) <= float(numbers["global"])


def wrong_there(device: str) -> list[float]:
    return [1.0, 2.0 if device == "elsewhere" else 2.5]


def missing_there(device: str) -> float:
    if device == "elsewhere":
        raise NotImplementedError("no such kernel\nthere")
    return 1.0


def test_what_a_device_computes_is_judged():
    """Every kind of result, of checks as they are made for a GPU."""
    solved = Check("a", lg.sharpness, lambda _: perceptron("cpu"), repeats=True)
    row = device.judged(solved, "elsewhere")
    assert (row["status"], row["error"], row["same_bits"]) == ("right", 0.0, True)
    row = device.judged(Check("b", wrong_there), "elsewhere")
    assert row["status"] == "wrong"
    assert row["ratio"] == pytest.approx(0.5 / (1 + 2.5**2) ** 0.5 / 1e-9)
    row = device.judged(Check("c", missing_there), "elsewhere")
    assert (row["status"], row["on elsewhere"]) == ("error", "NotImplementedError: no such kernel")
    assert device.judged(Check("d", lg.Problem), "elsewhere")["status"] == "raises"
    assert device.compared(torch.ones(2), torch.ones(3), 1.0)["status"] == "wrong"


def test_checks_of_a_device_have_names_of_their_own():
    names = [check.name for group in device.GROUPS for check in group()]
    assert len(names) == len(set(names)) > 700
    assert {"matrices/NTK, lstm", "metrics/Loss, conv", "solvers/trace"} < set(names)


def test_a_device_beside_the_cpu(tmp_path, monkeypatch, capsys):
    """Some of all checks, and the times of one small case, of the CPU in place of a GPU."""
    some = ("TF32/cuda.matmul.allow_tf32, put back", "traces/parameters", "memory/what to lower")

    def few():
        groups = (device_settings.of_settings, device_checks.of_solvers)
        every = [check for group in groups for check in group()]
        return (check for check in every if check.name.startswith((*some, "solvers/dense")))

    monkeypatch.setattr(device, "GROUPS", (few,))
    monkeypatch.setattr(device_speed, "PRODUCTS", ("lossgeom", "double_backward"))
    monkeypatch.setattr(device_speed, "FOLLOWED", 2)
    monkeypatch.setattr(device_speed, "LANCZOS_STEPS", (60,))
    sizes = ["--device", "cpu", "--quick", "--only", "checks,mlp", "--out", str(tmp_path)]
    assert device.main(sizes) == 0
    (file,) = tmp_path.glob(f"*/{device.FILE}")
    record = json.loads(file.read_text())
    assert [row["status"] for row in record["checks"]] == ["right"] * 4
    tasks = [row["task"] for row in record["speed"]]
    assert {"hessian", "gauss_newton", "top1", "top10", "jacobian", "following"} < set(tasks)
    assert all(row["status"] == "right" for row in record["speed"] if "peer" in row)
    assert "solvers | 1 |" in capsys.readouterr().err
    page = tmp_path / "page.md"
    page.write_text(f"{device.BEGIN}\nold\n{device.END}\n")
    assert device.main(["--into", str(page), "--out", str(tmp_path)]) == 0
    assert "| mlp | hessian | lossgeom |" in page.read_text()
    with pytest.raises(FileNotFoundError, match="run python -m"):
        table.everything(tmp_path)  # of other tables than that of the device
    if not torch.cuda.is_available():
        assert device.main([]) == 2
        assert "expected a GPU" in capsys.readouterr().err


def test_a_first_number_has_tables_and_notes(tmp_path, monkeypatch):
    def measured(line, name, quick):
        if name == "curvlinops":
            return {"status": "error", "message": "RuntimeError: no"}
        found = {"status": "right" if quick else "wrong", "first": 4.0, "next": 2.0}
        size = {"size": name, "parameters": 10**6, "gradient_seconds": 0.5, "products": 12}
        return {**found, **size, "title": f"a {line}", "megabytes": 100.0, "announced": 200.0}

    monkeypatch.setattr(first, "measured", measured)
    page = tmp_path / "page.md"
    page.write_text(f"{first.BEGIN}\n{first.END}\n")
    assert (
        first.main(["first", "memory", "scale", "--quick", f"--out={tmp_path}", f"--into={page}"])
        == 0
    )
    (file,) = tmp_path.glob("*/first/first.json")
    assert "gpt2, curvlinops: RuntimeError: no" in json.loads(file.read_text())["notes"]
    text = page.read_text()
    assert "| lossgeom | 4.0, 2.0 | 4.0, 2.0 | 4.0, 2.0 |" in text
    assert "| curvlinops | raises | raises | raises |" in text
    assert "| 100 of 200 |" in text
    assert "| 1,000,000 | 0.5 | 4 | 2 | 100 |" in text
    assert first.main(["none"]) == 2


def test_a_first_number_is_right():
    found = first_cases.of_line("mlp", "lossgeom, memory_budget=0", quick=True)
    assert found["status"] == "right"
    assert found["announced"] > 0
    assert first_cases.of_line("resnet18", "plain double backward", quick=True)["error"] == 0
    assert pytest.approx(1e6, rel=0.2) == first_cases.transformer("1M").P
