"""What outputs are differentiated in, and which outputs."""

import pytest
import torch
from torch import nn

import lossgeom as lg
from tests import reference
from tests.problems import CASES
from tests.real_models.models import GPT, TOKENS, Classifier, built

BY_NAME = {case.name: case for case in CASES}


def norms_of(function, inputs):
    """Dense, an example at a time."""
    J = [torch.autograd.functional.jacobian(lambda x: function(x[None])[0], x) for x in inputs]
    rows = [j.reshape(-1, x.numel()) for j, x in zip(J, inputs, strict=True)]
    return torch.stack([torch.linalg.matrix_norm(j, ord=2) for j in rows])


def sequences(*lengths, n=3):
    generator = torch.Generator().manual_seed(0)
    tokens = [torch.randint(TOKENS, (n, length), generator=generator) for length in lengths]
    return [(t, t) for t in tokens]


# Inputs


@pytest.mark.parametrize("name", ["two_inputs", "flat_tuple", "mapping", "encoding", "keywords"])
def test_one_of_several_inputs(name):
    case = BY_NAME[name]
    inputs = case.inputs
    by_name = isinstance(inputs, dict)
    x, gate = (inputs["x"], inputs["gate"]) if by_name else inputs

    def run(x, gate):
        outputs = case.model(x, gate)
        return outputs["logits"] if isinstance(outputs, dict) else outputs

    for wrt, chosen in zip(("x", "gate") if by_name else (0, 1), (x, gate), strict=True):
        expected = []
        for i in range(len(x)):
            others = {"x": x[i : i + 1], "gate": gate[i : i + 1]}
            key = "x" if chosen is x else "gate"
            one = norms_of(lambda v: run(**{**others, key: v}), chosen[i : i + 1])  # noqa: B023
            expected.append(one)
        norms = lg.jacobian_norms(case.problem(), wrt=wrt)
        torch.testing.assert_close(norms.values, torch.cat(expected))
        largest = lg.largest_jacobian_norm(case.problem(), wrt=wrt)
        assert largest.value == pytest.approx(norms.max, rel=1e-12)
        assert largest.example == norms.argmax


def test_inputs_of_a_forward_of_ones_own():
    case = BY_NAME["own_form"]
    norms = lg.jacobian_norms(case.problem(), wrt="x")
    torch.testing.assert_close(norms.values, norms_of(case.model, case.inputs[0]))


def test_names_of_inputs_that_there_are_not(unchecked):
    problem = BY_NAME["mapping"].problem()
    with pytest.raises(TypeError, match=r"with 2; say which .* wrt=, one of 'x', 'gate', or name"):
        lg.jacobian_norms(problem)
    with pytest.raises(ValueError, match=r"wrt= to be one of 'x', 'gate', the inputs .* got 'z'"):
        lg.jacobian_norms(problem, wrt="z")
    with pytest.raises(ValueError, match=r"either wrt='x', .* or embedding='left', .* not both"):
        lg.jacobian_norms(problem, wrt="x", embedding="left")


def test_inputs_that_are_no_rows_of_examples(unchecked):
    class Scaled(nn.Linear):
        def forward(self, x, scale):
            return super().forward(x) * scale

    data = [{"x": torch.ones(3, 2), "scale": torch.tensor(2.0), "labels": torch.zeros(3).long()}]
    problem = lg.Problem(Scaled(2, 2), "cross_entropy", data)
    with pytest.raises(TypeError, match=r"wrt='scale' to be a tensor with one row .* got \(\)"):
        lg.jacobian_norms(problem, wrt="scale")
    expected = torch.linalg.matrix_norm(2 * problem.model.weight, ord=2).item()
    assert lg.jacobian_norms(problem, wrt="x").max == pytest.approx(expected)


# Embeddings


@pytest.mark.parametrize("setting", [{}, {"method": "lanczos", "tol": 1e-6}], ids=str)
def test_tokens_by_their_embeddings(setting, unchecked):
    """In batches of sequences of different lengths, and with the head tied to the embedding."""
    model = built(GPT).double()
    data = sequences(5, 7, 2)
    problem = lg.Problem(model, "next_token_cross_entropy", data)
    norms = lg.jacobian_norms(problem, embedding="tokens", **setting)

    def rest(E):
        x = E + model.positions(torch.arange(E.shape[1]))
        for block in model.blocks:
            x = block(x)
        return model.head(model.norm(x))

    expected = torch.cat([norms_of(rest, model.tokens(tokens).detach()) for tokens, _ in data])
    torch.testing.assert_close(norms.values, expected.detach(), rtol=2e-6, atol=0)
    assert norms.converged.all()


def test_the_method_is_chosen_for_each_length(unchecked):
    problem = lg.Problem(built(GPT), "next_token_cross_entropy", sequences(2, 7))
    assert lg.jacobian_norms(problem, embedding="tokens").method == "mixed"
    frobenius = lg.jacobian_norms(problem, norm="frobenius", embedding="tokens")
    assert frobenius.method == "mixed"
    assert not frobenius.stderr[:3].any()
    assert frobenius.stderr[3:].all()


def test_softmax_over_the_classes_of_every_token(unchecked):
    model = built(GPT).double()
    problem = lg.Problem(model, "next_token_cross_entropy", sequences(2))
    expected = lg.jacobian_norms(
        problem, lambda outputs, batch: outputs.softmax(-1).flatten(1), embedding="tokens"
    )
    for method in ("exact", "lanczos"):
        norms = lg.jacobian_norms(problem, "softmax", embedding="tokens", method=method, tol=1e-6)
        torch.testing.assert_close(norms.values, expected.values, rtol=1e-6, atol=0)


def test_classes_in_the_second_dimension():
    case = BY_NAME["tokens"]
    expected = lg.jacobian_norms(case.problem(), lambda f, batch: f.softmax(1).flatten(1))
    torch.testing.assert_close(lg.jacobian_norms(case.problem(), "softmax").values, expected.values)


def test_padding_that_is_masked_changes_nothing(unchecked):
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.words = nn.Embedding(TOKENS, 4)
            self.head = nn.Linear(4, 3)

        def forward(self, tokens, mask):
            x = torch.tanh(self.words(tokens)) * mask[..., None]
            return self.head(x.sum(1) / mask.sum(1, keepdim=True))

    model, (tokens, _) = built(Masked), sequences(6)[0]
    mask = torch.ones(3, 6)
    mask[0, 2:], mask[2, 5:] = 0, 0
    y = torch.zeros(3).long()

    def norms(tokens, mask):
        data = [{"tokens": tokens, "mask": mask, "labels": y[: len(mask)]}]
        return lg.jacobian_norms(lg.Problem(model, "cross_entropy", data), embedding="words")

    padded = norms(tokens, mask)
    for i, length in enumerate((2, 6, 5)):
        cut = norms(tokens[i : i + 1, :length], mask[i : i + 1, :length])
        assert padded.values[i].item() == pytest.approx(cut.max)


def test_recurrent_models_of_tokens(unchecked):
    model = built(Classifier, nn.GRU).double()
    ((tokens, _),) = sequences(5)
    problem = lg.Problem(model, "cross_entropy", [(tokens, torch.zeros(3).long())])
    norms = lg.jacobian_norms(problem, embedding="tokens")

    def rest(E):
        return model.head(model.recurrent(E)[1][-1])

    torch.testing.assert_close(norms.values, norms_of(rest, model.tokens(tokens).detach()))


def test_the_call_of_an_embedding_is_intercepted_without_a_trace(unchecked):
    model = built(GPT)
    before = reference.fingerprint(model)
    problem = lg.Problem(model, "next_token_cross_entropy", sequences(5))
    loss = problem.loss()
    copied = reference.fingerprint(problem.network.module)
    lg.jacobian_norms(problem, embedding="tokens")
    with pytest.raises(ValueError, match="nothing"):
        lg.jacobian_norms(problem, refuse, embedding="tokens")
    assert reference.fingerprint(model) == before
    assert reference.fingerprint(problem.network.module) == copied
    assert lg.Problem.loss(problem.at(problem.theta)) == loss


def refuse(outputs, batch):
    raise ValueError("nothing")


def test_embeddings_that_cannot_be_intercepted(unchecked):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.unused = nn.Embedding(TOKENS, 4), nn.Linear(4, 4)
            self.places, self.head = nn.Embedding(9, 4), nn.Linear(4, 3)

        def forward(self, x):
            twice = self.words(x) + self.words(x.flip(1))
            return self.head((twice + self.places(torch.arange(x.shape[1]))).mean(1))

    ((tokens, _),) = sequences(5)
    problem = lg.Problem(Twice(), "cross_entropy", [(tokens, torch.zeros(3).long())])
    for name, message in {
        "words": "'words' to be called once in a forward pass, it is called 2 times",
        "unused": "it is called 0 times",
        "places": r"one row of floating-point numbers for each of 3 examples, got \(5, 4\)",
        "wrods": "name a module .* got 'wrods'; there are the embeddings 'words', 'places'",
    }.items():
        with pytest.raises(ValueError, match=message):
            lg.jacobian_norms(problem, embedding=name)
    with pytest.raises(ValueError, match=r"got torch.int64; .* embeddings 'words', 'places'"):
        lg.jacobian_norms(problem)


# Outputs


def test_outputs_of_ones_choice():
    case = BY_NAME["ragged"]
    problem = case.problem()
    margin = lg.jacobian_norms(problem, lambda f, batch: f[:, 0] - f[:, 1])
    expected = norms_of(lambda x: case.model(x)[:, :1] - case.model(x)[:, 1:2], case.inputs)
    torch.testing.assert_close(margin.values, expected)
    own = lg.jacobian_norms(problem, lambda f, batch: f.gather(1, batch[1][:, None]))
    label = [norms_of(lambda x: case.model(x)[:, c : c + 1], x[None])  # noqa: B023
             for x, c in zip(case.inputs, case.targets.tolist(), strict=True)]  # fmt: skip
    torch.testing.assert_close(own.values, torch.cat(label))


def test_outputs_that_work_in_place():
    problem = BY_NAME["ragged"].problem()

    def doubled(outputs, batch):
        batch[0].zero_()
        return outputs.mul_(2)

    twice = lg.jacobian_norms(problem, doubled).values
    torch.testing.assert_close(twice, 2 * lg.jacobian_norms(problem).values)


def test_outputs_that_are_no_rows_of_numbers(unchecked):
    problem = BY_NAME["ragged"].problem()
    for outputs, error, message in [
        (lambda f, b: f.sum(), ValueError, r"got outputs of shape \(\) from outputs= for 4"),
        (lambda f, b: f[:, :0], ValueError, r"expected outputs, got none: outputs= returned"),
        (lambda f, b: f.tolist(), TypeError, "expected outputs= to return a tensor, got a list"),
        (lambda f, b: f / 0, lg.NonFiniteError, "the output of outputs= is NaN or infinite"),
    ]:
        with pytest.raises(error, match=message):
            lg.jacobian_norms(problem, outputs)
    images = lg.Problem(
        nn.Conv2d(1, 2, 1), "squared_error", [(torch.ones(1, 1, 2, 2), torch.ones(1, 2, 2, 2))]
    )
    with pytest.raises(ValueError, match=r"which dimension of outputs \(1, 2, 2, 2\) holds"):
        lg.jacobian_norms(images, "softmax")
