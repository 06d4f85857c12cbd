"""Where else the rows of a record go: TensorBoard, W&B, MLflow, Trackio, a console.

Each is a :class:`Mirror`, for ``mirrors=`` of :func:`lossgeom.watch` or :class:`lossgeom.Tracker`.
"""

from lossgeom.mirrors.console import Console
from lossgeom.mirrors.mlflow import MLflow
from lossgeom.mirrors.numbers import key, logged
from lossgeom.mirrors.tensorboard import TensorBoard
from lossgeom.mirrors.trackio import Trackio
from lossgeom.mirrors.wandb import WandB
from lossgeom.recording.mirror import Mirror

__all__ = ["Console", "MLflow", "Mirror", "TensorBoard", "Trackio", "WandB", "key", "logged"]
