"""Optimizers, one file each: a gradient becomes an in-place update; state is declared beside the parameter it serves.

optimizer = SGD(lr=0.1, momentum=0.9, schedule=Cosine(steps=2000), warmup=100, clip_norm=1.0, accumulate=4)
"""

from strop.compiler.optim.adam import Adam as Adam
from strop.compiler.optim.base import Optimizer as Optimizer
from strop.compiler.optim.lion import Lion as Lion
from strop.compiler.optim.schedule import Constant as Constant
from strop.compiler.optim.schedule import Cosine as Cosine
from strop.compiler.optim.schedule import Linear as Linear
from strop.compiler.optim.schedule import Schedule as Schedule
from strop.compiler.optim.schedule import StepDecay as StepDecay
from strop.compiler.optim.sgd import SGD as SGD
