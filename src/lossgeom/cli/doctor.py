"""``lossgeom doctor``."""

from __future__ import annotations

import dataclasses

import tyro

from lossgeom.cli.arguments import parsed
from lossgeom.cli.messages import show
from lossgeom.cli.problem import FUNCTIONS, ProblemOptions, make_problem
from lossgeom.cli.user_code import explained, importable
from lossgeom.trust.doctor import doctor

HELP = f"""\
Compare the derivatives of a model with finite differences, and name the layers to blame.

{FUNCTIONS}

examples:
  lossgeom doctor net.py:model net.py:data               gradients and Hessian products
  lossgeom doctor net.py:model net.py:data --third       derivatives of curvature as well
  lossgeom doctor net.py:problem                         a Problem with a loss of its own
  lossgeom doctor zoo.nets:gpt zoo.text:batches --loss next_token_cross_entropy
                                                         modules, and a language model's loss
  lossgeom doctor net.py:model net.py:data --mode train --seed 0
                                                         as in training, one draw of dropout
  lossgeom doctor net.py:model net.py:data --parameters 'head.*'
                                                         in some of the parameters

the least that net.py can hold:
  import torch
  def model(): return torch.nn.Linear(3, 2)
  def data(): return [(torch.randn(8, 3), torch.randint(2, (8,)))]

exit status:
  0  every derivative that was asked for can be trusted
  1  one of them is not to be trusted
  2  the model could not be made or run"""


@dataclasses.dataclass(frozen=True)
class DoctorOptions(ProblemOptions):
    """What to examine."""

    third: tyro.conf.FlagCreatePairsOff[bool] = False
    """Examine third derivatives and nested forward mode as well."""


def main(arguments: list[str]) -> int:
    """Print the diagnosis of a model; return 1 if a derivative is not to be trusted."""
    options = parsed(DoctorOptions, arguments, "doctor", HELP)
    names = options.factories()
    with importable(*names):
        problem = make_problem(options)
        with explained(f"the derivatives of {' and '.join(names)} to be examined"):
            diagnosis = doctor(problem, third=options.third)
    show(str(diagnosis))
    return 0 if diagnosis.healthy else 1
