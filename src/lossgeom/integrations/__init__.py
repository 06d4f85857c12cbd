"""Watching a run in the frameworks that people train with; nothing is imported before it is used.

``lossgeom.integrations.lightning`` has ``LossGeometry``, a callback of Lightning,
``lossgeom.integrations.transformers`` has ``monitor`` and ``LossGeometryCallback`` for the Trainer
of Hugging Face, and ``lossgeom.integrations.accelerate`` has ``monitor`` for a loop with an
``Accelerator``. None attaches itself to anything that it is not given to.
"""
