"""The AlexNet of Krizhevsky, Sutskever and Hinton (2012), for any folder of images."""

__version__ = "0.1.0"
