"""The AlexNet of Krizhevsky, Sutskever and Hinton (2012), for any folder of images.

    import alexnet_cli as alexnet

    alexnet.split("flowers/", out="data", test=0.1)
    run = alexnet.train("data", epochs=30)
    model = alexnet.load(run.path)
    model.predict("rose.jpg", top=5)

Everything here is loaded on first use: importing the package takes no TensorFlow and no NumPy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from alexnet_cli.version import __version__

if TYPE_CHECKING:
    from alexnet_cli.api.cross_validation import crossval
    from alexnet_cli.api.evaluations import Report
    from alexnet_cli.api.models import Model, load
    from alexnet_cli.api.runs import Run, draw_figures, resume, train
    from alexnet_cli.api.splits import split
    from alexnet_cli.errors import AlexNetError, AlexNetWarning
    from alexnet_cli.inference.results import Prediction
    from alexnet_cli.training.callbacks import Callback

_MODULES = {
    "AlexNetError": "errors",
    "AlexNetWarning": "errors",
    "Callback": "training.callbacks",
    "Model": "api.models",
    "Prediction": "inference.results",
    "Report": "api.evaluations",
    "Run": "api.runs",
    "crossval": "api.cross_validation",
    "draw_figures": "api.runs",
    "load": "api.models",
    "resume": "api.runs",
    "split": "api.splits",
    "train": "api.runs",
}
__all__ = [
    "AlexNetError",
    "AlexNetWarning",
    "Callback",
    "Model",
    "Prediction",
    "Report",
    "Run",
    "__version__",
    "crossval",
    "draw_figures",
    "load",
    "resume",
    "split",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
