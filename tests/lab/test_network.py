"""The data and the network of studies."""

import pytest

from lossgeom.lab.studies._network import NetworkSettings, idle_settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"widths": (0,)}, r"expected widths of at least 1; got widths = \(0,\)$"),
        ({"examples": 1797}, "at most 1796 examples of digits; got examples = 1797"),
        ({"chunk": 0}, "at least 1; got examples = 500, chunk = 0"),
        ({"model": "vgg11"}, "vgg11 with the images of cifar10; got model = vgg11, data = digits"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        NetworkSettings(**settings)


def test_settings_that_are_of_no_use():
    images = {"data": "cifar10", "model": "vgg11"}
    assert idle_settings({"lr": 1.0, "network": images}) == ("widths", "activation")
    assert idle_settings({"lr": 1.0, "network": {"data": "digits", "model": "mlp"}}) == ("folder",)
    assert idle_settings({"data": "digits"}) == ("folder",)
    assert idle_settings({"eps": 0.1}) == ()
