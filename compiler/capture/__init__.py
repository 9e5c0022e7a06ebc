"""Readers of user models, one file a format; each gives a forward Program."""

from strop.compiler.capture.torch import capture as capture
