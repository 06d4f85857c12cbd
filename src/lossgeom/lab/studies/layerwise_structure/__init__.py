"""The decoupling of layers: Kronecker products that share the top eigenspaces of the Hessian.

Wu, Zhu, Wu, Wang and Ge (arXiv:2010.04261) conjecture that the Hessian of a trained network in the
weights of a layer, E[M x (x x^T)], decouples: it is about E[M] x E[x x^T], the product of the mean
Hessian in the layer's outputs and the auto-correlation of its inputs. Its top eigenvectors are then
nearly of rank one, u v^T. Here this is tried layer by layer, and compared with the closest of all
Kronecker products.

Inputs with pixels from 0 to 1, and those that come from a ReLU, have a mean that is large beside
how they vary. E[x x^T] is then nearly of rank one, along E[x], and so are the rows of the top
eigenvectors: there decoupling is nearly exact. Hence the controls: pixels whose mean is subtracted,
and batch normalisation, before the ReLU, with its running averages. Between ReLUs the Hessian in
the weights of a linear layer is E[M x (x x^T)] exactly; the positions of a convolution share its
weights, and then the decoupling leaves out what they have in common, too.

All that follows was fixed on seeds 100 to 105, for LeNet5 on 100 to 102, before any other was run;
those of the study are 10, 11, ... Seen there, with digits:

- Spaces of k eigenvectors are swapped where the k-th eigenvalue and the next are close: for one k
  of 1 to 5, another one for each seed, the overlap may be as low as .78. Hence the median over k.
- It is .96 to .98 in fc1 and .96 to .97 in fc2 of the mlp, and .84 to .91 in fc3. The longer it is
  trained, the less: with a learning rate of .1 in place of .05, it is .93 to .95 in fc2, and with
  .2 it is .88 to .92. A network of the same size is known to have .964, .946 and .953 there at
  k = 1, 3 and 5, after training at .1.
- The decoupling is 1.14 to 1.24 times as far from the Hessian as the closest Kronecker product in
  fc1, 1.07 to 1.18 in fc2 and 1.10 to 1.19 in fc3; 1.12 to 1.20 on average over the layers.
- In fc3 the largest gap is after 9 eigenvalues on every seed, by a factor of 2.3 to 3.3; in fc1 it
  is after 4 or 5. With a learning rate of .1, it is after the first one in fc3 on two seeds of
  three.
- The two largest eigenvalues of E[x x^T] have ratios of 15, 8 to 12 and 5 to 6; in fc2 with batch
  normalisation 2.2 to 2.6, and in fc1 with centred pixels 1.1. fc1 is not normalised.
- In LeNet5 the overlap is .92 to .93 in fc1, and on seeds 100 and 102 .74 and .82 in fc2, .70 and
  .69 in fc3, .43 and .53 in conv2. On seed 100 the decoupling of conv2 is 1.5 times as far from the
  Hessian as the closest product, that of conv1 3.4 times. The space of 9 eigenvectors has .55 or
  more in every layer; random ones have .06 at most.
"""

from lossgeom.lab.studies._study import Study
from lossgeom.lab.studies.layerwise_structure import claims, run
from lossgeom.lab.studies.layerwise_structure.config import NETWORKS, PAPER, Config
from lossgeom.recording.metric_figures import Panel, Trajectories

STUDY = Study(
    name="layerwise_structure",
    title="The structure of layers: decoupling, eigenspaces, outliers",
    source=claims.WU,
    Config=Config,
    paper=PAPER,
    grid=lambda _: {"network": NETWORKS},
    folder="{network}-seed{seed}",
    run=run.run,
    steps=lambda run: run.study.steps_of(run.place["network"]),
    claims=claims.claims,
    summary=claims.summary,
    figure=Trajectories(
        colour="network", panels=(Panel("loss", "loss", log=True), Panel("accuracy", "accuracy"))
    ),
)
