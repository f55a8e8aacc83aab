"""minivlm: every vision-language-model design, small enough to read, equal to the system it is named after."""

from minivlm.batch import Batch
from minivlm.budget import budget
from minivlm.designs import DESIGNS, build
from minivlm.model import VLM, Output
from minivlm.pretrained import from_transformers
from minivlm.runtime import setup
from minivlm.storage import load, save

__version__ = "0.1.0"
__all__ = ["DESIGNS", "VLM", "Batch", "Output", "budget", "build", "from_transformers", "load", "save", "setup"]
