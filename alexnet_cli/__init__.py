"""The AlexNet of Krizhevsky, Sutskever and Hinton (2012), for any folder of images."""

from alexnet_cli.version import __version__

__all__ = ["__version__"]
