"""What the models of the lab compute, and how many parameters they have."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lossgeom as lg
from lossgeom.lab.models import gpt, mlp, resnet14, resnet18, vgg11


def size(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("build", [vgg11, resnet14, resnet18])
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (1, 8, 8)])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_images_with_and_without_batch_normalisation(build, shape, batch_norm):
    width = 0.1 if build is vgg11 else 4
    model = build(7, width, seed=2, shape=shape, batch_norm=batch_norm)
    x = torch.rand(3, *shape)
    assert model(x).shape == (3, 7)
    kinds = {type(layer) for layer in model.modules()}
    assert (nn.BatchNorm2d in kinds) == batch_norm
    assert all(conv.bias is None for conv in model.modules() if isinstance(conv, nn.Conv2d)) == (
        batch_norm and build is not vgg11
    )
    if shape[0] == 1:
        torch.testing.assert_close(model.eval()(x.flatten(1)), model(x))
        bordered = F.pad(x.repeat_interleave(32 // shape[1], 2).repeat_interleave(
            32 // shape[1], 3), (2, 2, 2, 2) if shape[1] == 28 else (0, 0, 0, 0))  # fmt: skip
        large = build(7, width, seed=2, shape=(1, 32, 32), batch_norm=batch_norm).eval()
        large.load_state_dict(model.state_dict())
        torch.testing.assert_close(large(bordered), model(x))


def test_widths_of_vgg11():
    assert size(vgg11(shape=(1, 28, 28))) == 9_225_610 - 2 * 9 * 64
    assert size(vgg11(batch_norm=True)) == 9_225_610 + 2 * 2752
    assert vgg11(width=1 / 128)[0].weight.shape == (1, 3, 3, 3)
    with pytest.raises(ValueError, match="expected width > 0, got 0"):
        vgg11(width=0)
    with pytest.raises(ValueError, match="expected square images of at most 32 x 32 pixels"):
        vgg11(shape=(3, 64, 64))


def test_resnet14_has_fourteen_layers():
    """6 m + 2 for m = 2, and no weights in the shortcuts."""
    model = resnet14()
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == 14
    channels = [m.out_channels for m in layers[:-1]]
    assert channels == [16] * 5 + [32] * 4 + [64] * 4
    weights = 9 * (3 * 16 + 4 * 16**2 + 16 * 32 + 3 * 32**2 + 32 * 64 + 3 * 64**2)
    assert size(model) == weights + 2 * sum(channels) + 650
    with pytest.raises(ValueError, match="expected width of at least 1"):
        resnet14(width=0)


def test_shortcuts_of_resnet14_are_pixels_and_zeros():
    block = resnet14(width=4, batch_norm=False).stage2_block1
    for conv in (block.conv1, block.conv2):
        nn.init.zeros_(conv.weight)
        nn.init.zeros_(conv.bias)
    x = torch.rand(2, 4, 6, 6)
    y = block(x)
    assert y.shape == (2, 8, 3, 3)
    assert torch.equal(y[:, :4], x[:, :, ::2, ::2])
    assert not y[:, 4:].any()


@pytest.fixture
def tokens():
    return torch.randint(12, (5, 6), generator=torch.Generator().manual_seed(1))


def test_gpt_sees_the_past_alone(tokens):
    model = gpt(12, 8, layers=2, width=8, heads=2)
    logits = model(tokens)
    later = tokens.clone()
    later[:, 4:] = (later[:, 4:] + 1) % 12
    torch.testing.assert_close(model(later)[:, :4], logits[:, :4])
    assert not torch.allclose(model(later)[:, 4], logits[:, 4])
    torch.testing.assert_close(model(tokens[:, :3]), logits[:, :3])
    assert model.head.weight is model.tokens.weight


def test_attention_of_gpt_is_that_of_torch():
    block = gpt(12, 8, layers=1, width=8, heads=2).blocks[0]
    x = torch.randn(2, 5, 8)
    q, k, v = (
        part.view(2, 5, 2, 4).transpose(1, 2) for part in block.qkv(block.norm1(x)).split(8, 2)
    )
    attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    y = x + block.project(attended.transpose(1, 2).reshape(2, 5, 8))
    torch.testing.assert_close(block(x), y + block.mlp(block.norm2(y)))


def test_hessian_of_gpt_on_next_tokens(tokens, unchecked):
    model = gpt(12, 8, layers=1, width=4, heads=2).double()
    problem = lg.Problem(model, "next_token_cross_entropy", [(tokens[:3], tokens[:3]),
                                                             (tokens[3:], tokens[3:])])  # fmt: skip
    names, parts = zip(*model.named_parameters(), strict=True)

    def loss(theta):
        pieces = torch.split(theta, [p.numel() for p in parts])
        named = dict(zip(names, map(torch.Tensor.view_as, pieces, parts), strict=True))
        logits = torch.func.functional_call(model, named, (tokens,), tie_weights=True)
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())

    theta = nn.utils.parameters_to_vector(parts).detach()
    v = torch.randn(len(theta), generator=torch.Generator().manual_seed(2)).double()
    _, right = torch.autograd.functional.vhp(loss, theta, v)
    torch.testing.assert_close(lg.Hessian(problem) @ v[:, None], right[:, None])
    assert lg.doctor(problem).healthy


def test_gpt_errors():
    with pytest.raises(ValueError, match="expected a width that is a multiple of 3 heads, got 8"):
        gpt(width=8, heads=3)
    with pytest.raises(ValueError, match="expected layers of at least 1, got 0"):
        gpt(layers=0)


def test_ntk_parametrisation():
    """Outputs are about as large for any width, of numbers that are of deviation 1 for all."""
    x = torch.randn(200, 50, generator=torch.Generator().manual_seed(0))
    for width in (400, 1600):
        model = mlp(50, 200, [width], seed=3, parametrization="ntk")
        first, _, last = model
        hidden = (math.sqrt(2 / 50) * x @ first.weight.T + 0.1 * first.bias).relu()
        expected = math.sqrt(2 / width) * hidden @ last.weight.T + 0.1 * last.bias
        torch.testing.assert_close(model(x), expected)
        numbers = torch.cat([p.flatten() for p in model.parameters()])
        assert abs(numbers.std().item() - 1) < 0.02
        assert 1.2 < model(x).std().item() < 1.6  # the square root of 2
    assert size(model) == size(mlp(50, 200, [width]))
    with pytest.raises(
        ValueError, match="parametrization to be one of ntk or standard, got 'other'"
    ):
        mlp(2, 2, parametrization="other")
